import struct

import pytest

from furymesh.core import table
from furymesh.core.errors import InvalidManifestError
from furymesh.core.geometry import MAX_STREAM_SIZE
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.table import decode_table, encode_table


def line(path: bytes, kind: int = 0, size: int = 1) -> bytes:
    return (
        struct.pack(">BH", kind, len(path)) + path + (struct.pack(">Q", size) if kind < 2 else b"")
    )


HOSTILE_TABLES = {
    "unknown kind": line(b"a", kind=3),
    "cut in the head": line(b"a")[:2],
    "cut in the path": struct.pack(">BH", 2, 9) + b"a",
    "cut in the size": line(b"a")[:-1],
    "trailing byte": line(b"a") + b"\0",
    "empty path": line(b""),
    "not UTF-8": line(b"\xff"),
    "UTF-8 surrogate": line(b"\xed\xa0\x80"),
    "overlong slash": line(b"\xc0\xaf"),
    "out of order": line(b"b") + line(b"a"),
    "twice": line(b"a") + line(b"a"),
    "traversal": line(b"../a"),
    "absolute": line(b"/a"),
    "NUL": line(b"a\0b"),
    "file as directory": line(b"a") + line(b"a/b"),
    "full empty directory": line(b"a", kind=2) + line(b"a/b"),
    "case collision": line(b"A") + line(b"a"),
    "huge": line(b"a", size=MAX_STREAM_SIZE + 1),
    "as huge as can be": line(b"a", size=2**64 - 1),
    "huge length": struct.pack(">BH", 0, 65535) + b"a" * 100,
}


@pytest.mark.parametrize("raw", HOSTILE_TABLES.values(), ids=HOSTILE_TABLES.keys())
def test_hostile_tables(raw: bytes) -> None:
    with pytest.raises(InvalidManifestError):
        decode_table(raw)


def test_table_is_sorted_by_bytes_whatever_the_order_given() -> None:
    paths = ["a/b", "a", "é", "z", "a.b", "\U0001f600", "\uffff"]
    entries = [Entry(path, EntryKind.FILE, 1) for path in paths if path != "a"]
    raw = encode_table(reversed(entries))
    assert raw == encode_table(entries)
    listed = [entry.path for entry in decode_table(raw)]
    # By UTF-16 the last two would change places.
    assert listed == ["a.b", "a/b", "z", "é", "\uffff", "\U0001f600"]


def test_nothing_is_a_table_too() -> None:
    assert encode_table([]) == b""
    assert decode_table(b"") == ()


def test_refuses_to_write_what_nobody_would_read() -> None:
    for paths in (["../a"], ["\udcff"], ["a", "A"], ["a", "a"]):
        with pytest.raises(InvalidManifestError):
            encode_table(Entry(path, EntryKind.FILE, size) for size, path in enumerate(paths))


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode_table(Entry(name, EntryKind.FILE, MAX_STREAM_SIZE) for name in "abc")
    monkeypatch.setattr(table, "MAX_ENTRIES", 3)
    monkeypatch.setattr(table, "MAX_TABLE_SIZE", len(raw))
    assert len(decode_table(raw)) == 3
    monkeypatch.setattr(table, "MAX_ENTRIES", 2)
    with pytest.raises(InvalidManifestError, match="at most 2 files"):
        decode_table(raw)
    monkeypatch.undo()
    monkeypatch.setattr(table, "MAX_TABLE_SIZE", len(raw) - 1)
    with pytest.raises(InvalidManifestError, match="at most"):
        decode_table(raw)
