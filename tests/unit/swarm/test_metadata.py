from __future__ import annotations

from random import Random

import pytest

from furymesh.core.errors import ProtocolError
from furymesh.core.geometry import PAGE_DIGESTS, Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.manifest import Manifest
from furymesh.swarm.member import Member
from furymesh.swarm.metadata import ASK_AGAIN, PAGES_PER_MEMBER, ManifestFetch
from furymesh.wire import messages as m

PAGES = 20
CHUNK = 16 * 1024
COUNT = PAGES * PAGE_DIGESTS
MANIFEST = Manifest.build(
    HashAlgorithm.BLAKE3, Geometry(COUNT * CHUNK, CHUNK), Random(1).randbytes(32 * COUNT)
)


class Session:
    def number(self, file_id: FileId) -> int:
        return 1


class Link:
    """Notes what was asked of it."""

    def __init__(self) -> None:
        self.session = Session()
        self.asked: list[m.GetManifest] = []

    def send(self, message: m.GetManifest) -> None:
        self.asked.append(message)

    @property
    def pages(self) -> list[int]:
        return [page for message in self.asked for page in message.pages]


def members(count: int) -> tuple[list[Member], list[Link]]:
    links = [Link() for _ in range(count)]
    return [Member(link, number) for number, link in enumerate(links)], links  # type: ignore[arg-type]


def header() -> m.ManifestHeader:
    return m.ManifestHeader(1, MANIFEST.header_bytes, "film", True)


def with_header(member: Member) -> ManifestFetch:
    fetch = ManifestFetch(MANIFEST.file_id, None)
    fetch.header(member, header())
    return fetch


def answer(fetch: ManifestFetch, member: Member, page: int) -> None:
    fetch.page(member, m.ManifestPage(1, page, MANIFEST.page(page)))


def test_header_is_asked_of_all_and_not_twice_at_once() -> None:
    (one, two), links = members(2)
    fetch = ManifestFetch(MANIFEST.file_id, None)
    for now in (0.0, 1.0, ASK_AGAIN):
        fetch.ask(now, [one, two])
    assert [[message.header for message in link.asked] for link in links] == [[True, True]] * 2


def test_whole_manifest_comes_together() -> None:
    (one, two), links = members(2)
    fetch = with_header(one)
    assert (fetch.name_hint, fetch.executable) == ("film", True)
    while fetch.missing:
        fetch.ask(0.0, [one, two])
        for member, link in zip((one, two), links, strict=True):
            assert len(link.pages) <= PAGES_PER_MEMBER
            for page in link.pages:
                answer(fetch, member, page)
            link.asked.clear()
    assert fetch.manifest is not None
    assert fetch.manifest.complete
    assert sorted(fetch.fresh_pages) == list(range(PAGES))


def test_page_nobody_answers_is_asked_of_everybody_in_turn() -> None:
    """Two who never answer must not keep a third from being asked."""
    everybody, links = members(3)
    fetch = with_header(everybody[0])
    for page in range(1, PAGES):
        answer(fetch, everybody[0], page)
    now = 0.0
    for _ in range(6):
        fetch.ask(now, everybody)
        fetch.forgive()
        now += ASK_AGAIN
    assert [len(link.pages) for link in links] == [2, 2, 2]


def test_who_lacks_a_page_is_not_asked_for_it_until_forgiven() -> None:
    (one,), (link,) = members(1)
    fetch = with_header(one)
    fetch.ask(0.0, [one])
    asked = link.pages
    for page in asked:
        fetch.page(one, m.ManifestPage(1, page, b""))
    link.asked.clear()
    fetch.ask(0.0, [one])
    assert not set(link.pages) & set(asked)
    link.asked.clear()
    fetch.forgive()
    fetch.left(one)
    fetch.ask(0.0, [one])
    assert set(link.pages) == set(asked)


def test_pages_of_one_who_left_are_asked_of_others() -> None:
    (one, two), links = members(2)
    fetch = with_header(one)
    fetch.ask(0.0, [one])
    fetch.left(one)
    fetch.ask(0.0, [two])
    assert links[1].pages == links[0].pages


@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
def test_wrong_header_ends_the_link(known: bool) -> None:
    (one,), _ = members(1)
    fetch = with_header(one) if known else ManifestFetch(MANIFEST.file_id, None)
    forged = bytearray(MANIFEST.header_bytes)
    forged[-1] ^= 1
    with pytest.raises(ProtocolError, match="wrong manifest header"):
        fetch.header(one, m.ManifestHeader(1, bytes(forged), "", False))


def test_wrong_page_ends_the_link() -> None:
    (one,), _ = members(1)
    fetch = with_header(one)
    page = bytearray(MANIFEST.page(3))
    page[0] ^= 1
    with pytest.raises(ProtocolError, match="wrong manifest page"):
        fetch.page(one, m.ManifestPage(1, 3, bytes(page)))
    assert fetch.missing >> 3 & 1


def test_pages_nobody_asked_for_or_that_do_not_exist_do_no_harm() -> None:
    (one,), _ = members(1)
    fetch = ManifestFetch(MANIFEST.file_id, None)
    answer(fetch, one, 2)
    assert fetch.manifest is None
    fetch.header(one, header())
    answer(fetch, one, 2)
    fetch.page(one, m.ManifestPage(1, 10**9, b"x"))
    fetch.page(one, m.ManifestPage(1, 10**9, b""))
    assert fetch.missing.bit_count() == PAGES - 1


def test_dangerous_name_hints_are_dropped() -> None:
    (one,), _ = members(1)
    fetch = ManifestFetch(MANIFEST.file_id, None)
    fetch.header(one, m.ManifestHeader(1, MANIFEST.header_bytes, "../../etc/passwd", False))
    assert "/" not in fetch.name_hint


def test_only_what_is_new_counts_as_news() -> None:
    (member,), _ = members(1)
    fetch = ManifestFetch(MANIFEST.file_id, None)
    assert fetch.header(member, header())
    assert not fetch.header(member, header())
    page = m.ManifestPage(1, 3, MANIFEST.page(3))
    assert fetch.page(member, page)
    assert not fetch.page(member, page)
    assert not fetch.page(member, m.ManifestPage(1, 4, b""))
