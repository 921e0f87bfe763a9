"""Targets of folder sync: what it keeps in the data directory."""

from __future__ import annotations

from blake3 import blake3

from furymesh.core.errors import LocalDataError, UsageError
from furymesh.core.ids import NodeId
from furymesh.storage.scan import Facts
from furymesh.sync.client_book import ClientBook
from furymesh.sync.hash_index import HashIndex
from tests.fuzz.engine import Target
from tests.fuzz.material import JSON, NAMES, place, put

FACTS = Facts(2049, 131_074, 10_240, 1_600_000_000_123_456_789, 1_700_000_000_123_456_789)
HASH = bytes(range(32))
NODE, OTHER = NodeId(bytes(32)), NodeId(b"\1" * 32)
_INDEX_HEAD = len(b"furymesh sync index 1\n")


def sync_index(data: bytes) -> None:
    """Whatever is in it, it is an index, and what it says can be kept."""
    path = place("sync_index") / "x.index"
    # As it is, and as if somebody had taken the trouble of the checksum.
    body = data[_INDEX_HEAD + 16 :]
    forged = data[:_INDEX_HEAD] + blake3(body).digest(16) + body
    for raw in (data, forged):
        put(path, raw)
        index = HashIndex(path)
        assert len(index.get(FACTS)) in (0, 32)
        known = len(index)
        index.put(FACTS._replace(inode=1), HASH)
        index.save()
        assert known <= len(HashIndex(path)) <= known + 1


def _index() -> bytes:
    path = place("sync_index_seed") / "x.index"
    index = HashIndex(path)
    index.put(FACTS, HASH)
    index.put(FACTS._replace(mtime_ns=-1), HASH[::-1])
    index.save()
    return path.read_bytes()


def client_book(data: bytes) -> None:
    """Whatever is in it, an id it has is its node's, and nothing outside is made."""
    root = place("client_book")
    (root / "in").mkdir(exist_ok=True)
    book = ClientBook(root / "in", root / "data")
    put(book.path, data)
    folder = book.claim("laptop", NODE)
    assert folder == root / "in" / "laptop"
    assert folder.is_dir()
    try:
        book.claim("laptop", OTHER)
    except UsageError:
        return
    raise AssertionError("another node has the same id")


def _book() -> bytes:
    root = place("client_book_seed")
    (root / "in").mkdir(exist_ok=True)
    book = ClientBook(root / "in", root / "data")
    book.claim("laptop", NODE)
    book.claim("b\u00fcro", OTHER)
    return book.path.read_bytes()


TARGETS = (
    Target("sync_index", sync_index, lambda: {"two": _index()}, (), (b"furymesh sync index 1\n",)),
    Target(
        "client_book",
        client_book,
        lambda: {"two": _book()},
        (LocalDataError, UsageError),
        (*JSON, *NAMES, b'"laptop"', b'"entry":', b"aaaaaaaa"),
    ),
)
