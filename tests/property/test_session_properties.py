"""Two honest ends never offend each other, whatever crosses on the way."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.errors import ProtocolError
from furymesh.core.ids import FileId
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.session import Session, State

HASH = b"h" * 32
FILES = (FileId(b"a" * 32), FileId(b"b" * 32))


class End:
    """An end that serves, joins and leaves shares as it is told."""

    def __init__(self, *, initiator: bool) -> None:
        self.session = Session(initiator=initiator, handshake_hash=HASH)
        self.out: deque[bytes | int] = deque()  # a number stands for raw bytes
        self.shares: set[FileId] = set()
        self.shy: set[FileId] = set()  # shares whose joins it accepts without joining
        self.say(m.Hello(1, 1, b"instance"))

    def say(self, message: m.Message) -> None:
        self.out.append(codec.encode(message))

    def act(self, action: str, file_id: FileId) -> None:
        session = self.session
        match action:
            case "serve":
                self.shares.add(file_id)
            case "shy":
                self.shares.add(file_id)
                self.shy.add(file_id)
            case "join":
                self.shares.add(file_id)
                self.shy.discard(file_id)
                if session.state is State.OPEN and not session.joined(file_id):
                    self.say(session.join(file_id))
            case "leave":
                self.shares.discard(file_id)
                if session.joined(file_id):
                    self.say(session.leave(file_id, m.Reason.DONE))
            case "talk" if session.live(file_id):
                self.say(m.Request(session.number(file_id), (1,)))

    def hear(self, raw: bytes | int) -> None:
        session = self.session
        if isinstance(raw, int):
            session.payload_received(raw)
            return
        match session.received(raw):
            case m.Join() as join:
                known = [file_id for file_id in self.shares if session.proves(join, file_id)]
                if not known:
                    self.say(m.Refuse(join.share, m.Reason.NOT_FOUND))
                    return
                session.accept(join, known[0])
                if not session.joined(known[0]) and known[0] not in self.shy:
                    self.say(session.join(known[0]))
            case m.Refuse() as refuse:
                session.refused(refuse)
            case m.Leave() as leave:
                file_id = session.left(leave)
                if session.joined(file_id):
                    self.say(session.leave(file_id, m.Reason.DONE))
            case m.Request() as request:
                file_id = session.share_of(request)
                assert session.live(file_id)
                self.say(m.Data(session.number(file_id), 1, 0, 700))
                self.out += [300, 400]
            case m.Data() as data:
                assert session.share_of(data) in FILES
            case _:
                pass


steps = st.lists(
    st.tuples(
        st.sampled_from(["serve", "shy", "join", "leave", "talk", "deliver", "deliver"]),
        st.sampled_from([0, 1]),
        st.sampled_from(FILES),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=400, deadline=None)
def test_honest_ends_agree_when_everything_has_arrived(
    plan: list[tuple[str, int, FileId]],
) -> None:
    ends = (End(initiator=True), End(initiator=False))
    for end, other in (ends, ends[::-1]):
        other.hear(end.out.popleft())
    for action, who, file_id in plan:
        if action != "deliver":
            ends[who].act(action, file_id)
        elif ends[who].out:
            ends[1 - who].hear(ends[who].out.popleft())
    rounds = 0
    while ends[0].out or ends[1].out:
        rounds += 1
        assert rounds < 1000, "the two ends never stop talking"
        for end, other in (ends, ends[::-1]):
            if end.out:
                other.hear(end.out.popleft())
    for file_id in FILES:
        live = [end.session.live(file_id) for end in ends]
        assert live[0] == live[1]
        # Whoever joined a share that the other takes part in is live with it.
        if all(file_id in end.shares and file_id not in end.shy for end in ends) and any(
            end.session.joined(file_id) for end in ends
        ):
            assert live == [True, True]


frames = st.one_of(
    st.builds(m.Join, st.integers(0, 4), st.just(bytes(32)), st.just(bytes(32))),
    st.builds(m.Refuse, st.integers(0, 4), st.just(m.Reason.NOT_FOUND)),
    st.builds(m.Leave, st.integers(0, 4), st.just(m.Reason.DONE)),
    st.builds(m.Request, st.integers(0, 4), st.just((1,))),
    st.builds(m.Data, st.integers(0, 4), st.just(0), st.just(0), st.just(10)),
    st.builds(m.Hello, st.just(1), st.just(1), st.just(b"instance")),
    st.builds(m.Goodbye, st.just(m.Reason.DONE)),
).map(codec.encode) | st.binary(max_size=20)


@given(st.lists(frames, max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_hostile_end_meets_only_protocol_errors(raws: list[bytes]) -> None:
    end = End(initiator=False)
    end.act("serve", FILES[0])
    try:
        for raw in raws:
            end.hear(raw)
            if end.session.payload_left:
                end.hear(end.session.payload_left)
    except ProtocolError:
        pass
    assert not any(end.session.live(file_id) for file_id in FILES)
