"""What may be said when: the state machine of one link, after its handshake.

Always true:

* Hello is the first message of each end and comes once.
* A message about a share is sent only while that share is *live*: both ends
  have sent a Join for it and neither has sent Leave.
* After a Data message exactly ``length`` raw bytes follow, in records of
  chunk bytes; no control message is read before they are all in. So too after
  ArchiveData, on a link that carries folder sync.

Each end numbers its joins upwards and uses no number twice; a message carries
its sender's number. A Leave or Refuse of ours crosses messages that were legal
when they were sent, so a number of theirs that we left or refused is *void*,
not unknown: what comes with it is skipped, up to their Leave of it.

A Leave of ours may also cross their Join, which it then ends before we have seen
it. Each Join tells how many Leaves its sender had read; one that was overtaken
is refused, or the two ends would go on answering each other's past for ever.

Illegal messages raise ProtocolError (their bug); calls that this end should
not have made raise IllegalStateError (our bug).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import Enum, auto
from typing import get_args

from furymesh.core.errors import IllegalStateError, ProtocolError
from furymesh.core.ids import FileId, access_proof, discovery_tag
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.exchange import Exchange

PROTOCOL_VERSION = 1
MIN_PROTOCOL_VERSION = 1
MAX_LIVE_SHARES = 256  # per link; a peer that joins more is not downloading, it is probing
# Joins of theirs that were refused and stay on record: one integer each, and far
# more than anybody asks for in earnest.
MAX_REFUSED = 1024
# Chunk bytes that may still come for a share after our Leave: what the fastest
# link carries until a busy peer has read it. More is a peer that ignores it.
MAX_VOID_BYTES = 1024**3


class State(Enum):
    AWAIT_HELLO = auto()
    OPEN = auto()
    CLOSED = auto()


@dataclass(slots=True)
class _Theirs:
    """What a number of theirs stands for; no share once it was refused here."""

    tag: bytes
    overtaken_by: int | None  # our number whose Leave ends this one
    file_id: FileId | None = None
    void: bool = True  # refused, or left by us: messages with it are skipped
    void_bytes: int = 0


_LEGAL_ON_LINK: dict[State, tuple[type, ...]] = {
    State.AWAIT_HELLO: (m.Hello, m.Goodbye),
    State.OPEN: (m.Join, m.Refuse, m.Ping, m.Pong, m.Goodbye, m.Unknown, *get_args(m.RelayMessage)),
    State.CLOSED: (),
}


class Session:
    """One end of a link: feed it control records, ask it to encode messages."""

    def __init__(self, *, initiator: bool, handshake_hash: bytes) -> None:
        self.state = State.AWAIT_HELLO
        self.version = 0
        self.payload_left = 0
        self.exchange: Exchange | None = None  # of folder sync, where the link is for that
        self._initiator = initiator
        self._hash = handshake_hash
        self._mine: dict[FileId, int] = {}
        self._next_number = 1
        self._theirs: dict[int, _Theirs] = {}
        self._numbers: dict[FileId, int] = {}  # theirs by share; void ones only after our Leave
        self._last_number = 0
        self._leaves_sent = 0
        self._leaves_read = 0
        # Numbers of ours that we left while they had no live number for the share:
        # the ordinal of that Leave, by tag and number, until we see what became of it.
        self._unanswered: dict[bytes, dict[int, int]] = {}
        self._answer_due: set[FileId] = set()  # they left; our Leave of it is the answer

    # --- receiving ------------------------------------------------------------

    def received(self, raw: bytes) -> m.Message:
        """Decode one control record and check that it is legal now.

        What asks for nothing, because it is not understood or about a share
        that this end has left, comes out as Unknown.
        """
        if self.payload_left:
            raise IllegalStateError("a control record was read while chunk bytes are due")
        message = codec.decode(raw)
        if isinstance(message, m.ShareMessage):
            return self._share_message(message)
        if isinstance(message, m.SyncMessage):
            return self._sync_message(message)
        self._check_link_message(message)
        return message

    def _check_link_message(self, message: m.LinkMessage) -> None:
        if not isinstance(message, _LEGAL_ON_LINK[self.state]):
            raise ProtocolError(f"{type(message).__name__} while {self.state.name}")
        match message:
            case m.Hello():
                common = min(message.version, PROTOCOL_VERSION)
                if common < max(message.min_version, MIN_PROTOCOL_VERSION):
                    raise ProtocolError(
                        f"no common protocol version (theirs {message.min_version}"
                        f"–{message.version}, ours {MIN_PROTOCOL_VERSION}–{PROTOCOL_VERSION})"
                    )
                self.version = common
                self.state = State.OPEN
            case m.Join():
                self._note_join(message)
            case m.Refuse():
                if not 0 < message.share < self._next_number:
                    raise ProtocolError("Refuse for a Join that was never sent")
            case m.Goodbye():
                self.state = State.CLOSED

    def _note_join(self, join: m.Join) -> None:
        """Put a new number of theirs on record, as refused until it is accepted."""
        if join.share <= self._last_number:
            raise ProtocolError("Join with a number that is not above all before it")
        if join.leaves > self._leaves_sent:
            raise ProtocolError("Join after more Leaves than were sent")
        joined = len(self._numbers)
        if joined >= MAX_LIVE_SHARES or len(self._theirs) - joined >= MAX_REFUSED:
            raise ProtocolError("too many Joins on one link")
        self._last_number = join.share
        unanswered = self._unanswered.get(join.tag, {})
        overtaken_by = next((n for n, leave in unanswered.items() if leave > join.leaves), None)
        self._theirs[join.share] = _Theirs(join.tag, overtaken_by)

    def _sync_message(self, message: m.SyncMessage) -> m.Message:
        if self.state is not State.OPEN or self.exchange is None:
            raise ProtocolError(f"{type(message).__name__} on a link that is not for folder sync")
        self.exchange.received(message)
        if isinstance(message, m.ArchiveData):
            self.payload_left = message.length
        return message

    def _share_message(self, message: m.ShareMessage) -> m.Message:
        name = type(message).__name__
        known = self._theirs.get(message.share)
        if self.state is not State.OPEN or known is None:
            raise ProtocolError(f"{name} for a share that is not joined")
        if isinstance(message, m.Data):
            self._expect_payload(message, known)
            return message
        if isinstance(message, m.Leave):
            self._leaves_read += 1
        if known.void:
            if isinstance(message, m.Leave):
                self._end_void(message.share)
            return m.Unknown()
        if known.file_id not in self._mine and not isinstance(message, m.Leave):
            raise ProtocolError(f"{name} for a share that this end has not joined")
        return message

    def _expect_payload(self, data: m.Data, known: _Theirs) -> None:
        if known.file_id is None or (not known.void and known.file_id not in self._mine):
            raise ProtocolError("Data for a share that this end never joined")
        if known.void:
            known.void_bytes += data.length
            if known.void_bytes > MAX_VOID_BYTES:
                raise ProtocolError("Data for a share that this end left long ago")
        self.payload_left = data.length

    def payload_received(self, size: int) -> int:
        """Account for `size` raw bytes; returns how many are still due."""
        if size > self.payload_left:
            raise ProtocolError("more chunk bytes than announced")
        self.payload_left -= size
        return self.payload_left

    # --- shares ---------------------------------------------------------------

    def proves(self, join: m.Join, file_id: FileId) -> bool:
        """Whether a Join proves knowledge of this file id, in constant time, and still holds.

        One that was overtaken by our Leave does not hold: refuse it.
        """
        expected = access_proof(file_id, self._hash, initiator=not self._initiator)
        genuine = hmac.compare_digest(expected, join.proof) and join.tag == discovery_tag(file_id)
        known = self._theirs.get(join.share)
        return genuine and (known is None or known.overtaken_by is None)

    def accept(self, join: m.Join, file_id: FileId) -> None:
        """The share of a Join is known here and proven; raises ProtocolError if joined twice.

        A Join that was received and is not accepted counts as refused.
        """
        if file_id in self._numbers:
            raise ProtocolError("share joined twice")
        known = self._theirs[join.share]
        known.file_id, known.void = file_id, False
        self._numbers[file_id] = join.share

    def join(self, file_id: FileId) -> m.Join:
        """The message that joins a share from this end; once until it is left or refused."""
        if file_id in self._mine:
            raise IllegalStateError("share joined twice from this end")
        number = self._next_number
        self._next_number += 1
        self._mine[file_id] = number
        proof = access_proof(file_id, self._hash, initiator=self._initiator)
        return m.Join(number, discovery_tag(file_id), proof, self._leaves_read)

    def leave(self, file_id: FileId, reason: m.Reason) -> m.Leave:
        """The message that leaves a joined share; what they still say about it is void."""
        number = self._mine.pop(file_id)
        self._leaves_sent += 1
        theirs = self._theirs.get(self._numbers.get(file_id, 0))
        if theirs is not None and not theirs.void:
            theirs.void = True  # their Leave of it will be the answer
        elif file_id not in self._answer_due:
            unanswered = self._unanswered.setdefault(discovery_tag(file_id), {})
            unanswered[number] = self._leaves_sent
        self._answer_due.discard(file_id)
        return m.Leave(number, reason)

    def left(self, leave: m.Leave) -> FileId:
        """The share that they leave; their number for it means nothing from now on.

        If this end has joined it, it must answer with its own Leave.
        """
        file_id = self.share_of(leave)
        self._forget(leave.share)
        if file_id in self._mine:
            self._answer_due.add(file_id)
        return file_id

    def refused(self, refuse: m.Refuse) -> FileId | None:
        """Which of our joins was refused; None if it is one we have since left."""
        for unanswered in self._unanswered.values():
            unanswered.pop(refuse.share, None)
        for file_id, number in self._mine.items():
            if number == refuse.share:
                if self.live(file_id):
                    raise ProtocolError("Refuse for a share that they have joined")
                del self._mine[file_id]
                return file_id
        return None

    def share_of(self, message: m.ShareMessage) -> FileId:
        """The share that a message from `received` is about."""
        file_id = self._theirs[message.share].file_id
        if file_id is None:
            raise IllegalStateError("a message about a refused share was not skipped")
        return file_id

    def number(self, file_id: FileId) -> int:
        """Our number for a share, for messages that we send about it."""
        return self._mine[file_id]

    def joined(self, file_id: FileId) -> bool:
        """Whether this end has joined the share."""
        return file_id in self._mine

    def live(self, file_id: FileId) -> bool:
        """Whether messages about this share may be sent and are expected."""
        theirs = self._numbers.get(file_id)
        return file_id in self._mine and theirs is not None and not self._theirs[theirs].void

    def _end_void(self, number: int) -> None:
        """They leave what we had left or refused, which may be the answer to a Leave of ours."""
        known = self._theirs[number]
        if known.overtaken_by is not None:
            self._unanswered[known.tag].pop(known.overtaken_by, None)
        self._forget(number)

    def _forget(self, number: int) -> None:
        file_id = self._theirs.pop(number).file_id
        if file_id is not None:
            del self._numbers[file_id]
