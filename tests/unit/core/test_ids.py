"""How ids are written, read, found again from their first digits, and not given away."""

from __future__ import annotations

import pytest

from furymesh.core.errors import AmbiguousIdError, NotFoundError, UsageError
from furymesh.core.ids import (
    MIN_PREFIX,
    FileId,
    NodeId,
    discovery_tag,
    info_hash,
    node_id_text,
    parse_file_id,
    parse_node_id,
    resolve_prefix,
)

ONE = FileId(bytes.fromhex("00ff" * 16))
# Differs from ONE in the tenth digit.
TWO = FileId(bytes.fromhex("00ff00ff01" + "00" * 27))
FAR = FileId(bytes.fromhex("ab" * 32))
KNOWN = [ONE, TWO, FAR]


@pytest.mark.parametrize("text", ["ab" * 32, "AB" * 32, f" {'aB' * 32}\n"])
def test_a_file_id_is_read_in_either_case_and_with_blanks_around(text: str) -> None:
    assert parse_file_id(text) == FAR


@pytest.mark.parametrize(
    "text",
    ["", "ab" * 31 + "a", "ab" * 32 + "a", "ab" * 31 + "ag", "0x" + "ab" * 31, "١" * 64],
    ids=["nothing", "a digit less", "a digit more", "no hex digit", "0x", "other digits"],
)
def test_what_is_no_file_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a file id: expected 64 hex digits"):
        parse_file_id(text)


@pytest.mark.parametrize("text", ["ab" * 4, "ABABABAB", " abababab ", "ab" * 16, "ab" * 32])
def test_an_id_is_found_from_its_first_digits(text: str) -> None:
    assert resolve_prefix(text, KNOWN, what="share", listed="list") == FAR


def test_an_id_that_is_listed_twice_is_not_ambiguous() -> None:
    assert resolve_prefix("abababab", [FAR, ONE, FAR], what="share", listed="list") == FAR


@pytest.mark.parametrize("text", ["", "ab" * 3 + "a", "ab" * 32 + "a", "abababag", "ab ab ab ab"])
def test_what_cannot_begin_an_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"give {MIN_PREFIX} to 64 hex digits"):
        resolve_prefix(text, KNOWN, what="share", listed="list")


def test_digits_of_no_known_id_name_what_was_looked_for() -> None:
    with pytest.raises(
        NotFoundError, match="no download has an id starting with abababac; see `list`"
    ):
        resolve_prefix("abababac", KNOWN, what="download", listed="list")


def test_digits_of_several_ids_ask_for_more_and_show_the_choice() -> None:
    with pytest.raises(AmbiguousIdError) as caught:
        resolve_prefix("00FF00FF", KNOWN, what="share", listed="list")
    assert str(caught.value) == (
        "00ff00ff fits 2 shares (00ff00ff00ff00ff, 00ff00ff01000000…): give more digits of the id"
    )
    assert resolve_prefix("00ff00ff0", [ONE, FAR], what="share", listed="list") == ONE
    assert resolve_prefix("00ff00ff01", KNOWN, what="share", listed="list") == TWO


def test_a_node_id_is_read_in_either_case() -> None:
    node_id = NodeId(bytes(range(32)))
    text = node_id_text(node_id)
    assert len(text) == 52
    assert parse_node_id(text.upper()) == parse_node_id(f" {text} ") == node_id


@pytest.mark.parametrize(
    "text",
    ["", "a" * 51, "a" * 53, "a" * 51 + "b", "a" * 51 + "1", "a" * 52 + "====", "ä" * 52],
    ids=["nothing", "short", "long", "spare bits", "no base32", "padded", "not ASCII"],
)
def test_what_is_no_node_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a node id"):
        parse_node_id(text)


def test_info_hash_tells_neither_tag_nor_file_id() -> None:
    file_id = FileId(bytes(32))
    tag = discovery_tag(file_id)
    assert len(info_hash(tag)) == 20
    assert info_hash(tag) not in (tag[:20], file_id[:20])
    assert info_hash(tag) == info_hash(discovery_tag(FileId(bytes(32))))
