"""What may be said when: the state machine of one link, after its handshake.

Always true:

* Hello is the first message of each end and comes once.
* A message about a share is legal only while that share is *live*: both ends
  have sent a Join for it and neither has sent Leave.
* After a Data message exactly ``length`` raw bytes follow, in records of
  chunk bytes; no control message is read before they are all in.

Each end numbers the shares it joins; a message carries its sender's number.
Illegal messages raise ProtocolError (their bug); calls that this end should
not have made raise IllegalStateError (our bug).
"""

from __future__ import annotations

import hmac
from enum import Enum, auto

from furymesh.core.errors import IllegalStateError, ProtocolError
from furymesh.core.ids import DiscoveryTag, FileId, access_proof, discovery_tag
from furymesh.wire import codec
from furymesh.wire import messages as m

PROTOCOL_VERSION = 1
MIN_PROTOCOL_VERSION = 1
MAX_LIVE_SHARES = 256  # per link; a peer that joins more is not downloading, it is probing


class State(Enum):
    AWAIT_HELLO = auto()
    OPEN = auto()
    CLOSED = auto()


_LEGAL_ON_LINK: dict[State, tuple[type, ...]] = {
    State.AWAIT_HELLO: (m.Hello, m.Goodbye),
    State.OPEN: (m.Join, m.Refuse, m.Ping, m.Pong, m.Goodbye, m.Unknown),
    State.CLOSED: (),
}


class Session:
    """One end of a link: feed it control records, ask it to encode messages."""

    def __init__(self, *, initiator: bool, handshake_hash: bytes) -> None:
        self.state = State.AWAIT_HELLO
        self.version = 0
        self.payload_left = 0
        self._initiator = initiator
        self._hash = handshake_hash
        self._mine: dict[FileId, int] = {}
        self._theirs: dict[int, FileId] = {}
        self._next_number = 1

    # --- receiving ------------------------------------------------------------

    def received(self, raw: bytes) -> m.Message:
        """Decode one control record and check that it is legal now."""
        if self.payload_left:
            raise IllegalStateError("a control record was read while chunk bytes are due")
        message = codec.decode(raw)
        share = getattr(message, "share", None)
        if share is None or isinstance(message, m.Join | m.Refuse):
            self._check_link_message(message)
        elif self.state is not State.OPEN or share not in self._theirs:
            # A Leave of ours may cross messages of theirs, so a number that
            # was once joined stays known until they leave it too.
            raise ProtocolError(f"{type(message).__name__} for a share that is not joined")
        if isinstance(message, m.Data):
            self.payload_left = message.length
        return message

    def _check_link_message(self, message: m.Message) -> None:
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
                if message.share in self._theirs or len(self._theirs) >= MAX_LIVE_SHARES:
                    raise ProtocolError("Join reuses a number, or there are too many")
            case m.Goodbye():
                self.state = State.CLOSED
            case _:
                pass

    def payload_received(self, size: int) -> int:
        """Account for `size` raw bytes; returns how many are still due."""
        if size > self.payload_left:
            raise ProtocolError("more chunk bytes than announced")
        self.payload_left -= size
        return self.payload_left

    # --- shares ---------------------------------------------------------------

    def proves(self, join: m.Join, file_id: FileId) -> bool:
        """Whether a Join proves knowledge of this file id, in constant time."""
        expected = access_proof(file_id, self._hash, initiator=not self._initiator)
        return hmac.compare_digest(expected, join.proof) and join.tag == discovery_tag(file_id)

    def accept(self, join: m.Join, file_id: FileId) -> None:
        """The share of a Join is known here and proven; raises ProtocolError if joined twice."""
        if file_id in self._theirs.values():
            raise ProtocolError("share joined twice")
        self._theirs[join.share] = file_id

    def join(self, file_id: FileId) -> m.Join:
        """The message that joins a share from this end; once per share."""
        if file_id in self._mine:
            raise IllegalStateError("share joined twice from this end")
        number = self._next_number
        self._next_number += 1
        self._mine[file_id] = number
        proof = access_proof(file_id, self._hash, initiator=self._initiator)
        return m.Join(number, DiscoveryTag(discovery_tag(file_id)), proof)

    def leave(self, file_id: FileId, reason: m.Reason) -> m.Leave:
        return m.Leave(self._mine.pop(file_id), reason)

    def left(self, leave: m.Leave) -> FileId:
        """The share that they leave; their number for it is void from now on."""
        return self._theirs.pop(leave.share)

    def refused(self, refuse: m.Refuse) -> FileId | None:
        """Which of our joins was refused; None if it is one we have since left."""
        for file_id, number in self._mine.items():
            if number == refuse.share:
                if file_id in self._theirs.values():
                    raise ProtocolError("Refuse for a share that they have joined")
                del self._mine[file_id]
                return file_id
        return None

    def share_of(self, message: m.ShareMessage) -> FileId:
        return self._theirs[message.share]

    def number(self, file_id: FileId) -> int:
        """Our number for a share, for messages that we send about it."""
        return self._mine[file_id]

    def joined(self, file_id: FileId) -> bool:
        """Whether this end has joined the share."""
        return file_id in self._mine

    def live(self, file_id: FileId) -> bool:
        """Whether messages about this share may be sent and are expected."""
        return file_id in self._mine and file_id in self._theirs.values()
