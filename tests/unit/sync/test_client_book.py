from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault, LocalDataError, UsageError
from furymesh.core.ids import NodeId, node_id_text
from furymesh.sync.client_book import (
    MAX_CLIENTS,
    MAX_ID,
    MAX_PER_NODE,
    ClientBook,
    check_client_id,
)

ALICE, BOB = NodeId(b"a" * 32), NodeId(b"b" * 32)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def book(archive: Path, tmp_path: Path) -> ClientBook:
    return ClientBook(archive, tmp_path / "data")


def book_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "data" / "sync").glob("*.clients")
    return path


def test_a_client_gets_its_own_folder(book: ClientBook, archive: Path) -> None:
    assert book.claim("laptop", ALICE) == archive / "laptop"
    assert (archive / "laptop").is_dir()
    assert book.claim("phone", ALICE) == archive / "phone"
    assert book.claim("laptop", ALICE) == archive / "laptop"


def test_an_id_belongs_to_the_node_that_first_used_it(
    book: ClientBook, archive: Path, tmp_path: Path
) -> None:
    book.claim("laptop", ALICE)
    for again in (book, ClientBook(archive, tmp_path / "data")):
        with pytest.raises(UsageError, match='"laptop" belongs to another node'):
            again.claim("laptop", BOB)
        assert again.claim("laptop", ALICE)


@pytest.mark.parametrize("other", ["Laptop", "LAPTOP"])
def test_ids_that_some_systems_cannot_tell_apart_are_one(book: ClientBook, other: str) -> None:
    book.claim("laptop", ALICE)
    for node in (ALICE, BOB):
        with pytest.raises(UsageError, match='there is a client "laptop" already'):
            book.claim(other, node)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a/b", "/a", "a\\b", "a\0", "a\n", "con", "C:", "a.", "a "),
        *(".hidden", "-rf", "~root", ".furymesh-trash", "transfer_warnings.log"),
        *("x" * (MAX_ID + 1), "\u202eabc", "a\udc80", "\x1b[31m"),
    ],
    ids=repr,
)
def test_what_cannot_name_a_folder_is_no_client_id(
    book: ClientBook, archive: Path, text: str
) -> None:
    with pytest.raises(UsageError, match="cannot be a client id") as raised:
        book.claim(text, ALICE)
    assert str(raised.value).isprintable()
    assert os.listdir(archive) == []


def test_ids_that_people_choose() -> None:
    for text in ("laptop", "my-laptop_2", "Büro", "nas.local", "x" * MAX_ID, "書斎"):
        assert check_client_id(text) == text


def test_a_damaged_book_lets_nobody_in(book: ClientBook, tmp_path: Path) -> None:
    book.claim("laptop", ALICE)
    path = book_file(tmp_path)
    good = path.read_bytes()
    bare = json.dumps({"laptop": node_id_text(BOB)}).encode()  # without a checksum
    for raw in (b"", good[:-2], good.replace(b"laptop", b"laptoq"), b"[" * 100_000, bare):
        path.write_bytes(raw)
        for client_id, node in (("laptop", BOB), ("laptop", ALICE), ("new", BOB)):
            with pytest.raises(LocalDataError, match="delete it"):
                book.claim(client_id, node)
    path.write_bytes(good)
    assert book.claim("laptop", ALICE)


def test_strangers_cannot_claim_without_end(book: ClientBook, tmp_path: Path) -> None:
    for number in range(MAX_PER_NODE):
        book.claim(f"c{number}", ALICE)
    with pytest.raises(UsageError, match="as many clients as it takes"):
        book.claim("one-more", ALICE)
    assert book.claim("c0", ALICE)
    assert book.claim("bobs", BOB)
    assert MAX_CLIENTS >= MAX_PER_NODE


def test_a_folder_that_is_a_link_is_nobodys(
    book: ClientBook, archive: Path, tmp_path: Path
) -> None:
    (archive / "laptop").symlink_to(tmp_path)
    (archive / "file").touch()
    for client_id in ("laptop", "file"):
        with pytest.raises(EnvironmentFault, match="cannot create"):
            book.claim(client_id, ALICE)


def test_archives_have_books_of_their_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    ClientBook(tmp_path / "one", tmp_path / "data").claim("laptop", ALICE)
    assert ClientBook(tmp_path / "two", tmp_path / "data").claim("laptop", BOB)
