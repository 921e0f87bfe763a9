from __future__ import annotations

import json

import pytest

from furymesh.storage import checked_json

VALUE = {
    "link": "furymesh:\N{LATIN SMALL LETTER E WITH ACUTE}",
    "numbers": [1, 2.5, None],
    "deep": {"a": True},
}


def test_comes_back_and_is_json_still() -> None:
    raw = checked_json.encode(VALUE)
    assert checked_json.decode(raw) == (VALUE, True)
    assert json.loads(raw)["entry"] == VALUE


def test_files_of_before_are_read() -> None:
    assert checked_json.decode(json.dumps(VALUE).encode()) == (VALUE, False)


def believed(raw: bytes) -> bool:
    """Whether somebody who asks for a key of the value gets one."""
    try:
        value, _ = checked_json.decode(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "link" in value


def test_no_bit_is_free() -> None:
    raw = checked_json.encode(VALUE)
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert not believed(bytes(changed)), f"bit {bit}"


@pytest.mark.parametrize("more", [b"", b"\n", b" ", b"}"])
def test_no_length_but_the_right_one(more: bytes) -> None:
    raw = checked_json.encode(VALUE)
    for length in range(len(raw)):
        assert not believed(raw[:length] + more) or raw[:length] + more == raw
    assert not believed(raw + (more or b"x"))
