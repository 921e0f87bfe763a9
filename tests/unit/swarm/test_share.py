from __future__ import annotations

from typing import Any

import pytest

from furymesh.core.bitfield import mask_of, to_bytes
from furymesh.core.errors import EnvironmentFault, ProtocolError, SourceChangedError
from furymesh.core.geometry import MAX_CHUNKS
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import Sealer
from furymesh.core.uploads import Uploads
from furymesh.swarm.answers import MAX_ASKED, Answers
from furymesh.swarm.news import News
from furymesh.swarm.share import Share
from furymesh.wire import messages as m
from tests.unit.swarm.lab import Memory, blob, manifest_of

DATA = blob(20)
MANIFEST = manifest_of(DATA)
ALL = MANIFEST.header.geometry.all_chunks


class Session:
    def number(self, file_id: FileId) -> int:
        return 4


class Link:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.session = Session()
        self.sent: list[m.Message] = []
        self.farewell: m.Reason | None = None

    def send(self, message: m.Message, *, answer: bool = False) -> None:
        self.sent.append(message)

    def poke(self) -> None:
        """Nothing is written here."""

    def goodbye(self, reason: m.Reason, detail: str) -> None:
        self.farewell = reason


class Swarm:
    """What a share asks of its swarm."""

    def __init__(self) -> None:
        from random import Random

        self.uploads = Uploads(Random(1))
        self.news = News()
        self.answers = Answers()
        self.introduced = 0

    def now(self) -> float:
        return 0.0

    def number_of(self, link: Any) -> int:
        return 1

    def introduce(self, share: Share, link: Any) -> None:
        self.introduced += 1

    def dispatch(self) -> None:
        """Nothing is sent here."""

    def abandon(self, *what: Any) -> None:
        """Nothing is being sent here."""


@pytest.fixture
def share() -> Share:
    swarm: Any = Swarm()
    return Share(swarm, MANIFEST.file_id, name="film")


def live(share: Share) -> Any:
    link: Any = Link()
    share.live(link)
    return link


def serving(share: Share, have: int = ALL) -> Any:
    """Serve, and a member to talk to; what it was told so far is forgotten."""
    share.serve(MANIFEST, have, Memory(DATA))
    link = live(share)
    link.sent.clear()
    return link


def write(share: Share, link: Any) -> None:
    """Send what a link's writer would fetch by and by."""
    while share.swarm.answers.send_one(link):
        pass


def test_newcomer_is_told_what_is_here(share: Share) -> None:
    share.serve(MANIFEST, ALL, Memory(DATA))
    assert live(share).sent == [m.Bitmap(4, 0, b"", True)]


def test_part_of_it_is_told_as_bits(share: Share) -> None:
    share.serve(MANIFEST, 0b101, Memory(DATA))
    assert live(share).sent == [m.Bitmap(4, 0, to_bytes(0b101, 20), False)]


def test_nothing_is_not_told(share: Share) -> None:
    share.serve(MANIFEST, 0, None)
    assert live(share).sent == []


def test_gains_and_losses_are_told(share: Share) -> None:
    link = serving(share, 0b1)
    share.gained([3])
    share.gained([4])
    assert link.sent == []
    share.announce()
    assert link.sent == [m.Have(4, (3, 4))]
    share.withdraw(mask_of([3, 9]))
    assert link.sent == [m.Have(4, (3, 4)), m.Lost(4, (3,))]
    assert share.have == mask_of([0, 4])


@pytest.mark.parametrize(
    ("error", "left"),
    [(EnvironmentFault("unreadable"), ALL & ~0b100), (SourceChangedError("changed"), 0)],
)
def test_unreadable_chunks_are_withdrawn(share: Share, error: Any, left: int) -> None:
    serving(share)
    share.unreadable(2, error)
    assert share.have == left


def test_bitmaps_that_come_before_the_manifest_are_kept(share: Share) -> None:
    link = live(share)
    share.message(link, m.Bitmap(1, 0, to_bytes(0b11, 20), False))
    share.message(link, m.Bitmap(1, 16, to_bytes(0b1, 4), False))
    assert share.members[link].have == 0
    share.serve(MANIFEST, 0, None)
    assert share.members[link].have == mask_of([0, 1, 16])


@pytest.mark.parametrize(
    ("said", "have"),
    [
        ([m.Bitmap(1, 0, b"", True), m.Lost(1, (3, 4)), m.Have(1, (4,))], ALL & ~0b1000),
        ([m.Have(1, (3, 4)), m.Lost(1, (4, 5))], 0b1000),
        ([m.Lost(1, (7,)), m.Bitmap(1, 0, b"", True)], ALL),
        ([m.Bitmap(1, 0, b"", True)] * 50, ALL),
    ],
)
def test_early_announcements_count_in_their_order(
    share: Share, said: list[m.ShareMessage], have: int
) -> None:
    link = live(share)
    for message in said:
        share.message(link, message)
    share.serve(MANIFEST, 0, None)
    assert share.members[link].have == have


@pytest.mark.parametrize(
    "message",
    [
        m.Have(1, (2**31 - 1,)),
        m.Lost(1, (MAX_CHUNKS,)),
        m.Bitmap(1, MAX_CHUNKS, b"\1", False),
    ],
)
def test_early_announcements_take_bounded_memory(share: Share, message: m.ShareMessage) -> None:
    link = live(share)
    with pytest.raises(ProtocolError):
        share.message(link, message)


def test_impossible_early_announcement_ends_only_its_own_link(share: Share) -> None:
    honest, liar = live(share), live(share)
    share.message(liar, m.Have(1, (20,)))
    share.message(honest, m.Have(1, (19,)))
    share.serve(MANIFEST, 0, None)
    assert share.members[honest].have == 1 << 19
    assert share.members[liar].have == 0
    assert liar.farewell is m.Reason.PROTOCOL
    assert honest.farewell is None


def test_name_of_a_sealed_share_is_not_told(share: Share) -> None:
    geometry = MANIFEST.header.geometry
    digests = bytes(32 * geometry.chunk_count)
    sealer = Sealer(bytes(32))
    sealed = Manifest.build(HashAlgorithm.BLAKE3, geometry, digests, sealer=sealer)
    share.serve(sealed, 0, None)
    link = live(share)
    share.message(link, m.GetManifest(1, True, ()))
    write(share, link)
    assert link.sent == [m.ManifestHeader(4, sealed.header_bytes, "", False)]


@pytest.mark.parametrize(
    "message",
    [
        m.Request(1, (20,)),
        m.Have(1, (2**31 - 1,)),
        m.Lost(1, (20,)),
        m.Bitmap(1, 24, b"", False),
        m.Bitmap(1, 0, bytes(4), False),
        m.Bitmap(1, 0, b"\xff\xff\xff", False),
    ],
)
def test_what_cannot_be_is_refused(share: Share, message: m.ShareMessage) -> None:
    link = serving(share)
    with pytest.raises(ProtocolError):
        share.message(link, message)


def test_request_before_anything_was_announced_is_refused(share: Share) -> None:
    link = live(share)
    with pytest.raises(ProtocolError):
        share.message(link, m.Request(1, (0,)))


def test_request_for_what_is_not_here_is_turned_down(share: Share) -> None:
    link = serving(share, 0b1)
    share.message(link, m.Request(1, (0, 7)))
    (reject,) = link.sent
    assert (reject.chunks, reject.reason) == ((7,), m.Reason.NOT_HELD)
    assert share.swarm.uploads.queued == 1


def test_what_is_queued_outlives_that_the_content_is_looked_at_anew(share: Share) -> None:
    link = serving(share)
    share.message(link, m.Request(1, (0, 7)))
    share.serve(MANIFEST, ALL & ~0b1, Memory(DATA))
    assert link.sent[0] == m.Lost(4, (0,))
    assert share.swarm.uploads.queued == 1
    share.serve(MANIFEST, ALL, Memory(DATA))
    assert link.sent[-1] == m.Bitmap(4, 0, b"", True)
    assert share.swarm.uploads.queued == 1
    share.swarm.uploads.check()


def test_manifest_is_given_out_as_far_as_it_is_known(share: Share) -> None:
    link = live(share)
    share.message(link, m.GetManifest(1, True, (0,)))
    write(share, link)
    assert link.sent == [m.ManifestPage(4, 0, b"")]
    share.serve(MANIFEST, 0, None)
    link.sent.clear()
    share.message(link, m.GetManifest(1, True, (0, 5)))
    write(share, link)
    assert link.sent == [
        m.ManifestHeader(4, MANIFEST.header_bytes, "film", False),
        m.ManifestPage(4, 0, MANIFEST.page(0)),
        m.ManifestPage(4, 5, b""),
    ]


def test_pages_are_numbers_until_they_are_sent_and_not_without_end(share: Share) -> None:
    link = serving(share)
    share.message(link, m.GetManifest(1, False, (0,) * 32))
    write(share, link)
    assert link.sent == [m.ManifestPage(4, 0, MANIFEST.page(0))], "once is enough"
    link.sent.clear()
    for first in range(0, 2 * MAX_ASKED, 32):
        share.message(link, m.GetManifest(1, False, tuple(range(first, first + 32))))
    assert link.sent == []
    write(share, link)
    assert [page.page for page in link.sent] == list(range(MAX_ASKED))


def test_nothing_of_its_manifest_is_sent_after_the_share_was_left(share: Share) -> None:
    link = serving(share)
    other: Any = Share(share.swarm, FileId(bytes(32)))
    other.live(link)
    share.message(link, m.GetManifest(1, True, (0,)))
    other.message(link, m.GetManifest(2, True, (7,)))
    share.gone(link)
    write(share, link)
    assert link.sent == [m.ManifestPage(4, 7, b"")]


def test_who_has_left_is_not_listened_to(share: Share) -> None:
    link = serving(share)
    share.gone(link)
    share.gone(link)
    share.message(link, m.Request(1, (10**6,)))
    assert link.sent == []
    assert share.swarm.uploads.queued == 0


def test_answers_nobody_waits_for_are_ignored(share: Share) -> None:
    link = serving(share)
    share.message(link, m.Reject(1, (1,), m.Reason.BUSY))
    share.message(link, m.ManifestPage(1, 0, b"x"))
    assert link.sent == []
