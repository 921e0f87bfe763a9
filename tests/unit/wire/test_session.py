"""Two sessions wired together: what is legal when, and what crosses on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import get_args

import pytest

from furymesh.core.errors import IllegalStateError, ProtocolError
from furymesh.core.ids import FileId, access_proof, discovery_tag
from furymesh.wire import codec, session
from furymesh.wire import messages as m
from furymesh.wire.exchange import Exchange
from furymesh.wire.session import PROTOCOL_VERSION, Session, State

HASH = b"h" * 32
OTHER_HASH = b"o" * 32
FILE = FileId(b"f" * 32)
OTHER = FileId(b"g" * 32)
HELLO = m.Hello(1, 1, b"instance")
DONE = m.Reason.DONE


class End:
    """A session with its outgoing queue; it serves the shares in `shares`."""

    def __init__(self, *, initiator: bool, handshake_hash: bytes = HASH) -> None:
        self.session = Session(initiator=initiator, handshake_hash=handshake_hash)
        self.out: deque[bytes] = deque()
        self.heard: list[m.Message] = []
        self.shares: set[FileId] = set()

    def say(self, message: m.Message) -> None:
        self.out.append(codec.encode(message))

    def join(self, file_id: FileId = FILE) -> None:
        self.shares.add(file_id)
        self.say(self.session.join(file_id))

    def leave(self, file_id: FileId = FILE) -> None:
        self.shares.discard(file_id)
        self.say(self.session.leave(file_id, DONE))

    def hear(self, raw: bytes) -> m.Message:
        """Take a message in and answer as a swarm does."""
        message = self.session.received(raw)
        self.heard.append(message)
        match message:
            case m.Join():
                self._joined(message)
            case m.Refuse():
                self.session.refused(message)
            case m.Leave():
                file_id = self.session.left(message)
                if self.session.joined(file_id):
                    self.say(self.session.leave(file_id, DONE))
            case _:
                pass
        return message

    def _joined(self, join: m.Join) -> None:
        for file_id in self.shares:
            if self.session.proves(join, file_id):
                self.session.accept(join, file_id)
                if not self.session.joined(file_id):
                    self.say(self.session.join(file_id))
                return
        self.say(m.Refuse(join.share, m.Reason.NOT_FOUND))


class Pair:
    """Two ends; nothing moves until `flow` is called."""

    def __init__(self) -> None:
        self.a = End(initiator=True)
        self.b = End(initiator=False)
        for end in (self.a, self.b):
            end.say(HELLO)
        self.flow()

    def flow(self, steps: int = 100) -> None:
        """Deliver everything, in turns; fails if it never ends."""
        for _ in range(steps):
            if not self.a.out and not self.b.out:
                return
            for sender, receiver in ((self.a, self.b), (self.b, self.a)):
                if sender.out:
                    receiver.hear(sender.out.popleft())
        pytest.fail("the two ends never stop talking")

    def live(self, file_id: FileId = FILE) -> bool:
        both = {end.session.live(file_id) for end in (self.a, self.b)}
        assert len(both) == 1, "the ends disagree"
        return both.pop()


# --- the table of what is legal ------------------------------------------------


class Standing(Enum):
    """What the peer's number 1 stands for at the end under test."""

    UNKNOWN = auto()
    REFUSED = auto()
    THEIRS_ONLY = auto()  # they joined, this end has not
    OURS_ONLY = auto()  # this end joined, they have not
    LIVE = auto()
    WE_LEFT = auto()
    THEY_LEFT = auto()
    BOTH_LEFT = auto()


SYNC_MESSAGES: tuple[m.SyncMessage, ...] = (
    m.Identify("laptop"),
    m.Busy(1),
    m.Ready(),
    m.ArchiveInfo(("a",), (9,), (0,), (0o644,), bytes(32)),
    m.ArchiveTasks((0,), (0,)),
    m.ArchiveData((0,), (0,), (9,), bytes(32), 9),
    m.ArchiveSkip((0,)),
    m.ArchiveWritten(1),
    m.ArchiveFailed(0),
    m.ArchiveExtras(("a",)),
    m.ArchiveGone((0,)),
    m.NextSync(1),
)


class Fate(Enum):
    HEARD = auto()
    SKIPPED = auto()
    ERROR = auto()


LINK_MESSAGES: dict[type[m.Message], m.Message] = {
    m.Hello: HELLO,
    m.Join: m.Join(7, discovery_tag(OTHER), bytes(32)),
    m.Refuse: m.Refuse(1, m.Reason.NOT_FOUND),
    m.Ping: m.Ping(1),
    m.Pong: m.Pong(1),
    m.Goodbye: m.Goodbye(DONE),
    m.Rendezvous: m.Rendezvous((bytes(32),)),
    m.Introduction: m.Introduction(bytes(32), bytes(32), bytes(8), bytes(4), 1),
    m.Reach: m.Reach(bytes(32), bytes(8)),
    m.Summons: m.Summons(bytes(16), bytes(32), bytes(8)),
    m.Answer: m.Answer(bytes(16)),
    m.Spliced: m.Spliced(),
}
SHARE_MESSAGES: dict[type[m.Message], m.Message] = {
    m.Leave: m.Leave(1, DONE),
    m.GetManifest: m.GetManifest(1, True, (0,)),
    m.ManifestHeader: m.ManifestHeader(1, b"header", "name", False),
    m.ManifestPage: m.ManifestPage(1, 0, b"page"),
    m.Bitmap: m.Bitmap(1, 0, b"\1", False),
    m.Have: m.Have(1, (0,)),
    m.Lost: m.Lost(1, (0,)),
    m.Request: m.Request(1, (0,)),
    m.Data: m.Data(1, 0, 0, 10),
    m.Cancel: m.Cancel(1, (0,)),
    m.Reject: m.Reject(1, (0,), m.Reason.BUSY),
    m.Peers: m.Peers(1, ()),
}
UNKNOWN_FRAME = bytes.fromhex("fa3f020801")


def put(standing: Standing) -> Session:
    """A session in the open state whose peer's number 1 has this standing."""
    ours = Session(initiator=True, handshake_hash=HASH)
    peer = Session(initiator=False, handshake_hash=HASH)
    ours.received(codec.encode(HELLO))
    if standing is Standing.UNKNOWN:
        return ours
    if standing is not Standing.OURS_ONLY:
        join = ours.received(codec.encode(peer.join(FILE)))
        assert isinstance(join, m.Join)
        if standing is Standing.REFUSED:
            return ours
        ours.accept(join, FILE)
    if standing is Standing.THEIRS_ONLY:
        return ours
    ours.join(FILE)
    if standing in (Standing.WE_LEFT, Standing.BOTH_LEFT):
        ours.leave(FILE, DONE)
    if standing in (Standing.THEY_LEFT, Standing.BOTH_LEFT):
        leave = ours.received(codec.encode(m.Leave(1, DONE)))
        if isinstance(leave, m.Leave):
            ours.left(leave)
    return ours


# The fate of (Leave, Data, every other message about a share).
SHARE_FATES = {
    Standing.UNKNOWN: (Fate.ERROR, Fate.ERROR, Fate.ERROR),
    Standing.REFUSED: (Fate.SKIPPED, Fate.ERROR, Fate.SKIPPED),
    Standing.THEIRS_ONLY: (Fate.HEARD, Fate.ERROR, Fate.ERROR),
    Standing.OURS_ONLY: (Fate.ERROR, Fate.ERROR, Fate.ERROR),
    Standing.LIVE: (Fate.HEARD, Fate.HEARD, Fate.HEARD),
    Standing.WE_LEFT: (Fate.SKIPPED, Fate.HEARD, Fate.SKIPPED),  # the bytes have to be read
    Standing.THEY_LEFT: (Fate.ERROR, Fate.ERROR, Fate.ERROR),
    Standing.BOTH_LEFT: (Fate.ERROR, Fate.ERROR, Fate.ERROR),
}


def fate_of(ours: Session, raw: bytes) -> Fate:
    try:
        message = ours.received(raw)
    except ProtocolError:
        return Fate.ERROR
    return Fate.SKIPPED if isinstance(message, m.Unknown) else Fate.HEARD


@pytest.mark.parametrize("kind", SHARE_MESSAGES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("standing", Standing, ids=lambda standing: standing.name)
def test_messages_about_a_share(standing: Standing, kind: type[m.Message]) -> None:
    for_leave, for_data, for_others = SHARE_FATES[standing]
    expected = {m.Leave: for_leave, m.Data: for_data}.get(kind, for_others)
    ours = put(standing)
    assert fate_of(ours, codec.encode(SHARE_MESSAGES[kind])) is expected
    assert ours.payload_left == (10 if kind is m.Data and expected is Fate.HEARD else 0)


@pytest.mark.parametrize("kind", LINK_MESSAGES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("standing", Standing, ids=lambda standing: standing.name)
def test_messages_about_the_link_while_open(standing: Standing, kind: type[m.Message]) -> None:
    expected = Fate.ERROR if kind is m.Hello else Fate.HEARD
    if kind is m.Refuse and standing in (
        Standing.UNKNOWN,
        Standing.REFUSED,
        Standing.THEIRS_ONLY,
    ):
        expected = Fate.ERROR  # this end has sent no Join at all
    assert fate_of(put(standing), codec.encode(LINK_MESSAGES[kind])) is expected


@pytest.mark.parametrize(
    "message",
    [*LINK_MESSAGES.values(), *SHARE_MESSAGES.values(), *SYNC_MESSAGES],
    ids=lambda message: type(message).__name__,
)
def test_before_hello_and_after_goodbye(message: m.Message) -> None:
    fresh = Session(initiator=True, handshake_hash=HASH)
    assert fresh.version == 0
    expected = Fate.HEARD if isinstance(message, m.Hello | m.Goodbye) else Fate.ERROR
    assert fate_of(fresh, codec.encode(message)) is expected
    for standing in (Standing.UNKNOWN, Standing.LIVE):
        closed = put(standing)
        closed.received(codec.encode(m.Goodbye(DONE)))
        assert closed.state is State.CLOSED
        assert fate_of(closed, codec.encode(message)) is Fate.ERROR


def test_the_tables_cover_every_message() -> None:
    sync = set(map(type, SYNC_MESSAGES))
    assert sync == set(get_args(m.SyncMessage))
    assert {*LINK_MESSAGES, *SHARE_MESSAGES, *sync, m.Unknown} == set(m.Message.__args__)


@pytest.mark.parametrize("message", SYNC_MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_of_folder_sync_are_errors_on_other_links(message: m.SyncMessage) -> None:
    for standing in (Standing.UNKNOWN, Standing.LIVE):
        assert fate_of(put(standing), codec.encode(message)) is Fate.ERROR


def test_on_a_link_for_folder_sync_bytes_follow_what_announces_them() -> None:
    server = put(Standing.UNKNOWN)
    server.exchange = Exchange(client=False)
    assert server.received(codec.encode(SYNC_MESSAGES[0])) == SYNC_MESSAGES[0]
    server.exchange.sent(m.Ready())
    server.received(codec.encode(SYNC_MESSAGES[3]))
    server.exchange.sent(m.ArchiveTasks((0,), (0,)))
    assert server.payload_left == 0
    server.received(codec.encode(SYNC_MESSAGES[5]))
    assert server.payload_left == 9
    assert server.payload_received(9) == 0


def test_unknown_messages_are_skipped_only_while_open() -> None:
    assert fate_of(put(Standing.UNKNOWN), UNKNOWN_FRAME) is Fate.SKIPPED
    assert fate_of(Session(initiator=True, handshake_hash=HASH), UNKNOWN_FRAME) is Fate.ERROR


# --- Hello and versions ---------------------------------------------------------


@pytest.mark.parametrize(("lowest", "highest"), [(1, 1), (1, 2), (1, 2**32 - 1)])
def test_a_common_version_is_chosen(lowest: int, highest: int) -> None:
    ours = Session(initiator=True, handshake_hash=HASH)
    ours.received(codec.encode(replace(HELLO, version=highest, min_version=lowest)))
    assert ours.state is State.OPEN
    assert ours.version == 1


def test_both_ends_choose_the_highest_common_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PROTOCOL_VERSION", 3)
    for highest, chosen in ((2, 2), (3, 3), (4, 3)):
        ours = Session(initiator=False, handshake_hash=HASH)
        ours.received(codec.encode(replace(HELLO, version=highest)))
        assert ours.version == chosen


def test_no_common_version_is_an_error() -> None:
    ours = Session(initiator=True, handshake_hash=HASH)
    newer = replace(HELLO, version=PROTOCOL_VERSION + 2, min_version=PROTOCOL_VERSION + 1)
    with pytest.raises(ProtocolError, match="no common protocol version"):
        ours.received(codec.encode(newer))
    assert ours.state is State.AWAIT_HELLO


def test_an_end_that_dropped_old_versions_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PROTOCOL_VERSION", 5)
    monkeypatch.setattr(session, "MIN_PROTOCOL_VERSION", 4)
    with pytest.raises(ProtocolError, match="no common"):
        Session(initiator=True, handshake_hash=HASH).received(codec.encode(HELLO))


def test_a_newer_hello_with_unknown_fields_is_understood() -> None:
    extra = bytes.fromhex("c00c01ca0c0178")  # fields 200 and 201
    plain = codec.encode(replace(HELLO, version=9, features=("teleport",)))
    assert plain[0] == 0x0A
    raw = bytes([0x0A, plain[1] + len(extra)]) + plain[2:] + extra
    ours = Session(initiator=True, handshake_hash=HASH)
    hello = ours.received(raw)
    assert isinstance(hello, m.Hello)
    assert hello.features == ("teleport",)
    assert ours.version == 1


# --- proofs ---------------------------------------------------------------------


def test_a_proof_convinces_the_other_end() -> None:
    pair = Pair()
    join = pair.a.session.join(FILE)
    assert pair.b.session.proves(join, FILE)
    assert not pair.b.session.proves(join, OTHER)
    assert join.proof == access_proof(FILE, HASH, initiator=True)


def test_a_proof_cannot_be_replayed_on_another_link() -> None:
    join = End(initiator=True).session.join(FILE)
    elsewhere = Session(initiator=False, handshake_hash=OTHER_HASH)
    assert not elsewhere.proves(join, FILE)


def test_a_proof_cannot_be_reflected() -> None:
    pair = Pair()
    join = pair.a.session.join(FILE)
    assert not pair.a.session.proves(join, FILE)


def test_the_tag_alone_proves_nothing() -> None:
    ours = put(Standing.UNKNOWN)
    for proof in (bytes(32), discovery_tag(FILE), FILE):
        assert not ours.proves(m.Join(1, discovery_tag(FILE), proof), FILE)


def test_a_proof_under_another_tag_is_refused() -> None:
    ours = put(Standing.UNKNOWN)
    proof = access_proof(FILE, HASH, initiator=False)
    assert ours.proves(m.Join(1, discovery_tag(FILE), proof), FILE)
    assert not ours.proves(m.Join(1, discovery_tag(OTHER), proof), FILE)


# --- joining and leaving ----------------------------------------------------------


def test_a_share_becomes_live_and_ends() -> None:
    pair = Pair()
    pair.b.shares.add(FILE)
    pair.a.join()
    assert not pair.a.session.live(FILE)
    pair.flow()
    assert pair.live()
    pair.a.say(m.Have(pair.a.session.number(FILE), (3,)))
    pair.flow()
    assert pair.b.session.share_of(m.Have(1, (3,))) == FILE
    pair.a.leave()
    pair.flow()
    assert not pair.live()
    assert not pair.b.session.joined(FILE)
    assert isinstance(pair.a.heard[-1], m.Unknown)  # their Leave, which answers ours


def test_both_join_at_once() -> None:
    pair = Pair()
    pair.a.join()
    pair.b.join()
    pair.flow()
    assert pair.live()


def test_both_leave_at_once_and_join_again() -> None:
    pair = Pair()
    pair.a.join()
    pair.b.join()
    pair.flow()
    pair.a.leave()
    pair.b.leave()
    pair.a.join()
    pair.b.join()
    assert not pair.a.session.live(FILE)
    pair.flow()
    assert pair.live()
    assert pair.a.session.number(FILE) == 2


def test_joining_again_at_once_after_leaving() -> None:
    pair = Pair()
    pair.b.shares.add(FILE)
    for _ in range(3):
        pair.a.join()
        pair.flow()
        assert pair.live()
        pair.a.leave()
        pair.a.join()
        assert not pair.a.session.live(FILE)
        pair.flow()
        assert pair.live()
        pair.a.leave()
        pair.flow()


def test_leaving_while_the_answer_to_the_join_is_on_its_way() -> None:
    pair = Pair()
    pair.b.shares.add(FILE)
    pair.a.join()
    pair.b.hear(pair.a.out.popleft())
    number = pair.b.session.number(FILE)
    pair.b.say(m.Bitmap(number, 0, b"", True))
    pair.b.say(m.Peers(number, ()))
    pair.a.leave()
    pair.flow()
    assert not pair.live()
    pair.a.join()
    pair.flow()
    assert pair.live()


def test_leaving_and_joining_again_before_the_first_answer() -> None:
    """Without the count of Leaves the two ends would answer each other's past for ever."""
    pair = Pair()
    pair.b.shares.add(FILE)
    pair.a.join()
    pair.a.leave()
    pair.a.join()
    pair.flow()
    assert pair.live()


def test_leaving_and_serving_before_the_first_answer() -> None:
    pair = Pair()
    pair.b.shares.add(FILE)
    pair.a.join()
    pair.a.leave()
    pair.a.shares.add(FILE)
    pair.flow()
    assert not pair.live()
    pair.b.join()
    pair.flow()
    assert pair.live()


def test_a_join_that_our_leave_has_overtaken_does_not_hold() -> None:
    ours = put(Standing.OURS_ONLY)
    ours.leave(FILE, DONE)
    proof = access_proof(FILE, HASH, initiator=False)
    overtaken = ours.received(codec.encode(m.Join(1, discovery_tag(FILE), proof, 0)))
    assert isinstance(overtaken, m.Join)
    assert not ours.proves(overtaken, FILE)
    assert fate_of(ours, codec.encode(m.Have(1, (0,)))) is Fate.SKIPPED
    assert fate_of(ours, codec.encode(m.Leave(1, DONE))) is Fate.SKIPPED
    later = ours.received(codec.encode(m.Join(2, discovery_tag(FILE), proof, 1)))
    assert isinstance(later, m.Join)
    assert ours.proves(later, FILE)


def test_a_join_cannot_claim_leaves_that_were_not_sent() -> None:
    with pytest.raises(ProtocolError, match="Leaves"):
        put(Standing.LIVE).received(codec.encode(m.Join(2, bytes(32), bytes(32), 1)))


def test_a_join_made_after_our_leave_was_read_holds() -> None:
    """Also where that Leave has no answer yet, as their number came after it."""
    ours = put(Standing.OURS_ONLY)
    ours.leave(FILE, DONE)
    proof = access_proof(FILE, HASH, initiator=False)
    join = ours.received(codec.encode(m.Join(1, discovery_tag(FILE), proof, 1)))
    assert isinstance(join, m.Join)
    assert ours.proves(join, FILE)
    with pytest.raises(ProtocolError, match="Leaves"):
        ours.received(codec.encode(m.Join(2, discovery_tag(FILE), proof, 2)))


def test_a_join_made_before_our_leave_holds_once_what_we_left_was_refused() -> None:
    ours = put(Standing.OURS_ONLY)
    ours.join(OTHER)
    ours.leave(OTHER, DONE)
    ours.leave(FILE, DONE)
    for number in (1, 2):
        refuse = ours.received(codec.encode(m.Refuse(number, m.Reason.NOT_FOUND)))
        assert isinstance(refuse, m.Refuse)
        assert ours.refused(refuse) is None
    proof = access_proof(FILE, HASH, initiator=False)
    join = ours.received(codec.encode(m.Join(1, discovery_tag(FILE), proof, 0)))
    assert isinstance(join, m.Join)
    assert ours.proves(join, FILE)


def test_joins_that_one_leave_has_overtaken_end_one_by_one() -> None:
    ours = put(Standing.OURS_ONLY)
    ours.leave(FILE, DONE)
    proof = access_proof(FILE, HASH, initiator=False)
    for number in (1, 2):
        join = ours.received(codec.encode(m.Join(number, discovery_tag(FILE), proof, 0)))
        assert isinstance(join, m.Join)
        assert not ours.proves(join, FILE)
    for number in (1, 2):
        assert fate_of(ours, codec.encode(m.Leave(number, DONE))) is Fate.SKIPPED
    # Their first Leave was the answer, so the next Join is overtaken by nothing.
    later = ours.received(codec.encode(m.Join(3, discovery_tag(FILE), proof, 0)))
    assert isinstance(later, m.Join)
    assert ours.proves(later, FILE)


def test_only_the_first_leave_after_theirs_is_the_answer_to_it() -> None:
    ours = put(Standing.THEY_LEFT)
    ours.leave(FILE, DONE)  # the answer
    ours.join(FILE)
    ours.leave(FILE, DONE)  # nobody's answer
    proof = access_proof(FILE, HASH, initiator=False)
    join = ours.received(codec.encode(m.Join(2, discovery_tag(FILE), proof, 1)))
    assert isinstance(join, m.Join)
    assert not ours.proves(join, FILE)


def test_leaving_what_they_never_joined_leaves_other_shares_live() -> None:
    ours = put(Standing.LIVE)
    ours.join(OTHER)
    ours.leave(OTHER, DONE)
    assert ours.live(FILE)


def test_a_join_tells_how_many_leaves_were_read() -> None:
    ours = put(Standing.THEY_LEFT)
    ours.leave(FILE, DONE)
    proof = access_proof(FILE, HASH, initiator=False)
    join = ours.received(codec.encode(m.Join(2, discovery_tag(FILE), proof)))
    assert isinstance(join, m.Join)
    ours.accept(join, FILE)
    leave = ours.received(codec.encode(m.Leave(2, DONE)))
    assert isinstance(leave, m.Leave)
    ours.left(leave)
    assert ours.join(FILE).leaves == 2


def test_leaving_before_the_refusal_is_known() -> None:
    pair = Pair()
    pair.a.join()
    pair.a.leave()
    pair.flow()
    assert pair.a.session.state is State.OPEN
    assert any(isinstance(message, m.Refuse) for message in pair.a.heard)
    pair.b.join()
    pair.flow()
    assert not pair.live()


def test_a_refused_share_may_be_joined_later_by_either_end() -> None:
    pair = Pair()
    pair.a.join()
    pair.flow()
    assert not pair.a.session.joined(FILE)
    pair.b.join()  # it has the share now
    pair.flow()
    assert pair.live()


def test_a_join_that_crosses_its_refusal() -> None:
    pair = Pair()
    pair.a.join()
    pair.b.hear(pair.a.out.popleft())  # refused
    pair.b.join()
    pair.flow()
    assert pair.live()


def test_refusing_a_live_share_is_an_error() -> None:
    ours = put(Standing.LIVE)
    refuse = ours.received(codec.encode(m.Refuse(1, m.Reason.NOT_FOUND)))
    assert isinstance(refuse, m.Refuse)
    with pytest.raises(ProtocolError, match="they have joined"):
        ours.refused(refuse)


@pytest.mark.parametrize("number", [0, 2, 2**32 - 1])
def test_refusing_a_number_never_used_is_an_error(number: int) -> None:
    ours = put(Standing.OURS_ONLY)
    with pytest.raises(ProtocolError, match="never sent"):
        ours.received(codec.encode(m.Refuse(number, m.Reason.NOT_FOUND)))


@pytest.mark.parametrize("standing", [s for s in Standing if s not in (Standing.UNKNOWN,)])
def test_numbers_only_go_up(standing: Standing) -> None:
    ours = put(standing)
    if standing is Standing.OURS_ONLY:
        ours.received(codec.encode(m.Join(1, discovery_tag(OTHER), bytes(32))))
    for number in (0, 1):
        with pytest.raises(ProtocolError, match="not above"):
            ours.received(codec.encode(m.Join(number, discovery_tag(OTHER), bytes(32))))
    ours.received(codec.encode(m.Join(9, discovery_tag(OTHER), bytes(32))))
    with pytest.raises(ProtocolError, match="not above"):
        ours.received(codec.encode(m.Join(5, discovery_tag(OTHER), bytes(32))))


@pytest.mark.parametrize("standing", [Standing.THEIRS_ONLY, Standing.LIVE, Standing.WE_LEFT])
def test_a_share_joined_twice_is_an_error(standing: Standing) -> None:
    ours = put(standing)
    proof = access_proof(FILE, HASH, initiator=False)
    join = ours.received(codec.encode(m.Join(2, discovery_tag(FILE), proof)))
    assert isinstance(join, m.Join)
    assert ours.proves(join, FILE)
    with pytest.raises(ProtocolError, match="joined twice"):
        ours.accept(join, FILE)


def test_too_many_live_shares() -> None:
    ours = put(Standing.UNKNOWN)
    for index in range(session.MAX_LIVE_SHARES):
        join = ours.received(codec.encode(m.Join(index + 1, bytes(32), bytes(32))))
        assert isinstance(join, m.Join)
        ours.accept(join, FileId(index.to_bytes(32, "big")))
    raw = codec.encode(m.Join(session.MAX_LIVE_SHARES + 1, bytes(32), bytes(32)))
    with pytest.raises(ProtocolError, match="too many"):
        ours.received(raw)
    ours.left(m.Leave(1, DONE))
    ours.received(raw)


def test_too_many_refused_joins() -> None:
    ours = put(Standing.LIVE)  # which does not count as refused
    for index in range(session.MAX_REFUSED):
        ours.received(codec.encode(m.Join(index + 2, bytes(32), bytes(32))))
    raw = codec.encode(m.Join(session.MAX_REFUSED + 2, bytes(32), bytes(32)))
    with pytest.raises(ProtocolError, match="too many"):
        ours.received(raw)
    assert fate_of(ours, codec.encode(m.Leave(2, DONE))) is Fate.SKIPPED
    ours.received(raw)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda ours: ours.join(FILE),
        lambda ours: ours.received(codec.encode(m.Data(1, 0, 0, 5))) and ours.received(b""),
        lambda ours: (
            ours.received(codec.encode(m.Join(5, bytes(32), bytes(32))))
            and ours.share_of(m.Have(5, ()))
        ),
    ],
)
def test_our_own_mistakes_are_not_blamed_on_the_peer(mistake: Callable[[Session], object]) -> None:
    with pytest.raises(IllegalStateError):
        mistake(put(Standing.LIVE))


# --- chunk bytes ------------------------------------------------------------------


def test_payload_is_accounted_for_to_the_byte() -> None:
    ours = put(Standing.LIVE)
    ours.received(codec.encode(m.Data(1, 4, 0, 1000)))
    assert ours.payload_left == 1000
    assert ours.payload_received(999) == 1
    with pytest.raises(ProtocolError, match="more chunk bytes"):
        ours.payload_received(2)
    assert ours.payload_received(1) == 0
    assert isinstance(ours.received(codec.encode(m.Ping(1))), m.Ping)
    with pytest.raises(ProtocolError, match="more chunk bytes"):
        ours.payload_received(1)


def test_no_control_message_is_read_before_the_payload_is_in() -> None:
    ours = put(Standing.LIVE)
    ours.received(codec.encode(m.Data(1, 0, 0, 1)))
    with pytest.raises(IllegalStateError):
        ours.received(codec.encode(m.Ping(1)))


def test_data_for_a_share_we_left_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_VOID_BYTES", 2000)
    ours = put(Standing.WE_LEFT)
    for _ in range(2):
        data = ours.received(codec.encode(m.Data(1, 0, 0, 1000)))
        assert isinstance(data, m.Data)
        assert ours.share_of(data) == FILE
        ours.payload_received(1000)
    with pytest.raises(ProtocolError, match="left long ago"):
        ours.received(codec.encode(m.Data(1, 0, 0, 1000)))
    assert ours.payload_left == 0
