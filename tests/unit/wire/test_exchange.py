"""Two ends of a session of folder sync wired together: what is legal when."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from furymesh.core.errors import IllegalStateError, ProtocolError
from furymesh.wire import exchange as limits
from furymesh.wire import messages as m
from furymesh.wire.exchange import Exchange, Phase
from furymesh.wire.sync_codec import DIGEST_SIZE, MAX_BATCH, MAX_FILES

WHO = m.Identify("laptop")


def info(*sizes: int, last: bool = False) -> m.ArchiveInfo:
    count = len(sizes)
    paths, digests = tuple(f"file{n}" for n in range(count)), bytes(DIGEST_SIZE * count)
    return m.ArchiveInfo(paths, sizes, (0,) * count, (0o644,) * count, digests, last)


def data(*runs: tuple[int, int, int]) -> m.ArchiveData:
    """Runs of (file, offset, length)."""
    files, offsets, lengths = zip(*runs, strict=True)
    return m.ArchiveData(files, offsets, lengths, bytes(DIGEST_SIZE * len(runs)), sum(lengths))


class Pair:
    """Two ends; what one says the other hears at once, or in `later` when told to."""

    def __init__(self) -> None:
        self.client = Exchange(client=True)
        self.server = Exchange(client=False)
        self.to_server: deque[m.SyncMessage] = deque()

    def say(self, *messages: m.SyncMessage) -> Pair:
        """The client says something."""
        for message in messages:
            self.client.sent(message)
            self.server.received(message)
        return self

    def answer(self, *messages: m.SyncMessage) -> Pair:
        """The server says something."""
        for message in messages:
            self.server.sent(message)
            self.client.received(message)
        return self

    def start(self) -> Pair:
        return self.say(WHO).answer(m.Ready())


def test_a_session_from_its_first_word_to_its_last() -> None:
    pair = Pair().say(WHO).answer(m.Busy(2), m.Busy(1), m.Ready())
    pair.say(info(10, 20, 30)).answer(m.ArchiveTasks((0, 2), (0, 5), (1,)))
    pair.say(info(20, last=True)).answer(m.ArchiveTasks(copied=1))
    assert not pair.server.is_over()
    pair.say(m.ArchiveSkip((1,)), data((0, 0, 10), (2, 5, 20)), data((2, 25, 5)))
    assert pair.client.in_flight == pair.server.in_flight == 35
    pair.answer(m.ArchiveWritten(2))
    assert pair.client.in_flight == pair.server.in_flight == 0
    assert pair.server.is_over(2)
    assert not pair.server.is_over()
    pair.server.done(0)
    pair.server.done(2)
    assert pair.server.is_over()
    pair.answer(m.NextSync(300))
    assert pair.client.phase is pair.server.phase is Phase.OVER


def test_what_a_mirror_would_remove_is_asked_about_page_by_page() -> None:
    pair = Pair().start().say(info(last=True)).answer(m.ArchiveTasks())
    pair.answer(m.ArchiveExtras(("a", "b")))
    with pytest.raises(IllegalStateError, match="NextSync too early"):
        pair.server.sent(m.NextSync(1))
    pair.say(m.ArchiveGone((1,))).answer(m.ArchiveExtras(("c",)))
    pair.say(m.ArchiveGone(())).answer(m.NextSync(1))


def test_what_is_put_off_may_be_asked_for_when_others_are_removed() -> None:
    pair = Pair().start().say(info(7, last=True))
    pair.answer(m.ArchiveTasks(later=(0,)), m.ArchiveExtras(("x",)))
    pair.say(m.ArchiveGone((0,))).answer(m.ArchiveTasks((0,), (0,), again=True))
    assert not pair.server.is_over()
    pair.say(data((0, 0, 7)))
    pair.server.done(0)
    pair.answer(m.ArchiveWritten(1), m.NextSync(1))


def test_a_file_that_failed_may_still_have_bytes_on_their_way() -> None:
    pair = Pair().start().say(info(9, 9, 9, last=True))
    pair.answer(m.ArchiveTasks((0,), (0,), (1,), (2,)))
    for file in range(3):
        pair.answer(m.ArchiveFailed(file, "the disk refuses"))
    pair.say(data((0, 0, 4)), m.ArchiveSkip((0,)))
    assert pair.server.is_over()
    pair.answer(m.ArchiveWritten(1), m.NextSync(1))


def test_a_digest_that_was_announced_is_not_asked_for() -> None:
    page = info(9, 9, last=True)
    digests = bytes(DIGEST_SIZE) + b"\1" * DIGEST_SIZE
    pair = Pair().start().say(info(4), replace(page, digests=digests)).answer(m.ArchiveTasks())
    with pytest.raises(ProtocolError, match="a digest that was announced"):
        pair.client.received(m.ArchiveTasks(unhashed=(2,)))
    pair = Pair().start().say(info(4), replace(page, digests=digests)).answer(m.ArchiveTasks())
    pair.answer(m.ArchiveTasks(unhashed=(1,)))


def test_a_file_that_has_changed_is_announced_again_before_it_is_taken_back() -> None:
    pair = Pair().start().say(info(9, last=True)).answer(m.ArchiveTasks((0,), (0,)))
    pair.say(info(8), m.ArchiveSkip((0,))).answer(m.ArchiveTasks((1,), (0,)))
    pair.say(data((1, 0, 8)))
    pair.server.done(1)
    pair.answer(m.NextSync(1))


def test_asking_again_may_cross_with_taking_back() -> None:
    pair = Pair().start().say(info(9, last=True)).answer(m.ArchiveTasks((0,), (0,)))
    pair.client.sent(m.ArchiveSkip((0,)))
    pair.answer(m.ArchiveTasks((0,), (3,), again=True))
    pair.server.received(m.ArchiveSkip((0,)))
    pair.server.done(0)  # which it was, meanwhile
    with pytest.raises(IllegalStateError):
        pair.client.sent(data((0, 3, 1)))
    pair.answer(m.NextSync(1))


def test_windows_are_those_of_the_protocol() -> None:
    pair = Pair().start()
    for _ in range(limits.WINDOW_PAGES):
        assert pair.client.pages_left
        pair.say(info(100 * MAX_BATCH))
    assert not pair.client.pages_left
    with pytest.raises(ProtocolError, match="unanswered"):
        pair.server.received(info())
    pair.answer(m.ArchiveTasks((0,), (0,)))
    full = limits.WINDOW_BYTES // MAX_BATCH
    for _ in range(full):
        assert pair.client.room >= MAX_BATCH
        pair.say(data((0, 0, MAX_BATCH)))
    assert pair.client.room == 0
    with pytest.raises(ProtocolError, match="under way"):
        pair.server.received(data((0, 0, 1)))
    pair.answer(m.ArchiveWritten(full))
    for _ in range(limits.WINDOW_BATCHES):
        pair.say(data((0, 0, 1)))
    assert pair.client.room == 0
    pair.answer(m.ArchiveWritten(1))
    assert pair.client.room == limits.WINDOW_BYTES - limits.WINDOW_BATCHES + 1


def test_a_session_has_so_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_FILES > 1_000_000
    monkeypatch.setattr(limits, "MAX_FILES", 3)
    pair = Pair().start().say(info(1, 1))
    with pytest.raises(ProtocolError, match="too many files"):
        pair.server.received(info(1, 1))


ANNOUNCED = (info(10, 20),)
ASKED = (*ANNOUNCED, m.ArchiveTasks((0,), (5,), (1,)))
LAST = (info(10, last=True), m.ArchiveTasks())


@pytest.mark.parametrize(
    ("before", "message", "reason"),
    [
        ((), WHO, "Identify while OPEN"),
        ((), m.Busy(1), "Busy while OPEN"),
        (ASKED, data((1, 0, 1)), "nobody asked for"),
        (ASKED, data((0, 5, 6)), "nobody asked for"),
        (ASKED, data((9, 0, 1)), "nobody asked for"),
        (ASKED, m.ArchiveSkip((2,)), "nobody asked for"),
        (LAST, info(1), "after the last"),
        ((info(10, last=True), m.ArchiveTasks((0,), (0,))), info(1, last=True), "two last"),
        ((), m.ArchiveGone(()), "nobody asked for"),
        ((*LAST, m.ArchiveExtras(("a",))), m.ArchiveGone((1,)), "of no path"),
        ((), m.ArchiveTasks(), "answers no ArchiveInfo"),
        (ANNOUNCED, m.ArchiveTasks((2,), (0,)), "another page"),
        (ANNOUNCED, m.ArchiveTasks(unhashed=(2,)), "another page"),
        (ANNOUNCED, m.ArchiveTasks(later=(2,)), "another page"),
        (ANNOUNCED, m.ArchiveTasks((0,), (10,)), "beyond"),
        (ASKED, m.ArchiveTasks((0,), (10,), again=True), "beyond"),
        (ASKED, m.ArchiveTasks((2,), (0,), again=True), "of no file"),
        (ASKED, m.ArchiveTasks((0,), (0,), (1,), again=True), "of no page"),
        (ASKED, m.ArchiveTasks((0,), (0,), (), (1,), again=True), "of no page"),
        (ASKED, m.ArchiveTasks((0,), (0,), copied=1, again=True), "of no page"),
        ((), m.ArchiveWritten(1), "was not sent"),
        ((), m.ArchiveFailed(0), "of no file"),
        ((), m.ArchiveExtras(("a",)), "too early"),
        ((*LAST, m.ArchiveExtras(("a",))), m.ArchiveExtras(("a",)), "too early"),
        ((), m.NextSync(1), "too early"),
        ((info(10, last=True),), m.NextSync(1), "too early"),
    ],
)
def test_breaches_end_the_link_of_whoever_makes_them(
    before: tuple[m.SyncMessage, ...], message: m.SyncMessage, reason: str
) -> None:
    by_client = (m.Identify, m.ArchiveInfo, m.ArchiveData, m.ArchiveSkip, m.ArchiveGone)
    pair = Pair().start()
    for step in before:
        if isinstance(step, by_client):
            pair.say(step)
        else:
            pair.answer(step)
    hears, says = pair.client, pair.server
    if isinstance(message, by_client):
        hears, says = says, hears
    with pytest.raises(ProtocolError, match=reason):
        hears.received(message)
    with pytest.raises(IllegalStateError):
        says.sent(message)


def test_nothing_is_said_out_of_turn() -> None:
    pair = Pair()
    with pytest.raises(ProtocolError, match="ArchiveInfo while IDENTIFY"):
        pair.server.received(info())
    with pytest.raises(ProtocolError, match="Ready while IDENTIFY"):
        pair.client.received(m.Ready())
    pair.say(WHO)
    with pytest.raises(ProtocolError, match="ArchiveInfo while QUEUED"):
        pair.server.received(info())
    pair.answer(m.Ready()).say(info(last=True)).answer(m.ArchiveTasks(), m.NextSync(1))
    with pytest.raises(ProtocolError, match="ArchiveInfo while OVER"):
        pair.server.received(info())
    with pytest.raises(ProtocolError, match="NextSync while OVER"):
        pair.client.received(m.NextSync(1))
