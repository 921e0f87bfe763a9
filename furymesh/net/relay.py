"""A relay: brings together nodes that cannot dial each other, and carries their bytes.

Nodes keep a *rendezvous* link to it and name their discovery tags there; those that
name the same tag are introduced to each other. Whoever wants a link to a node that is
here dials the relay anew; the node is summoned, dials too, and the two connections are
spliced. The ends shake hands through the splice, so the relay sees ciphertext only.

Always true: only a node whose rendezvous link lives is summoned, a token is good once
and for that node alone, and nobody has more places than the limits below allow.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import trio

from furymesh.core.errors import FuryMeshError, LinkClosedError
from furymesh.core.ids import NodeId
from furymesh.net.addresses import is_loopback, packed_ip, same_machine
from furymesh.net.connect import Endpoint
from furymesh.net.handler import Shareless
from furymesh.net.secure_link import SecureLink
from furymesh.net.splice import splice
from furymesh.net.strangers import Strangers
from furymesh.net.throttle import Budget
from furymesh.wire import codec
from furymesh.wire import messages as m

RENDEZVOUS = "rendezvous"  # features in Hello: what a link to a relay is for,
RELAY = "relay"  # and what a relay offers

MAX_HOSTED = 1000  # rendezvous links: each a socket, some tasks and its tags
MAX_HOSTED_PER_NODE = 4  # processes of one node
MAX_HOSTED_PER_MACHINE = 64  # behind one address may be a whole company
MAX_SESSIONS = 64  # splices, and those that ask for one; unless set otherwise
MAX_SESSIONS_PER_NODE = 8  # asked for by one node: the links of a download, not all places
MAX_SESSIONS_PER_MACHINE = 16  # asked for from one address, where identities cost nothing
MAX_SESSIONS_PER_TARGET = 16  # towards one process, which does not ask for them
MAX_SESSIONS_PER_PAIR = 4  # splices from one machine to one process: others want it, too
HALF_OPEN_SECONDS = 10.0  # for a word that is due, and for the summoned to come
IDLE_SECONDS = 60.0  # without a byte; a link that lives pings every 5 s
SESSION_SECONDS = 6 * 3600.0  # then whoever still needs it asks again, and others have a turn
INTRODUCTIONS = 30  # for one tag at a time: enough for the links that a node needs
MAX_INTRODUCED = 500  # in answer to one Rendezvous: half of what may wait to be read
# Rendezvous messages in a row, of which another is allowed each second: each may
# take a thousand look-ups.
BURST = 10

Process = tuple[NodeId, bytes]  # node id and instance


@dataclass(slots=True, eq=False)
class _Hosted(Shareless):
    """A node with a rendezvous link, and the handler of that link."""

    relay: Relay
    link: SecureLink
    tags: frozenset[bytes] = frozenset()
    allowance: float = BURST
    asked_at: float = field(default_factory=trio.current_time)

    @property
    def process(self) -> Process:
        return self.link.node_id, self.link.instance

    def message(self, link: SecureLink, message: m.Message) -> None:
        match message:
            case m.Ping():
                link.pong(message.nonce)
            case m.Rendezvous():
                now = trio.current_time()
                self.allowance = min(self.allowance + now - self.asked_at, BURST) - 1
                self.asked_at = now
                if self.allowance < 0:
                    link.goodbye(m.Reason.BUSY, "too many Rendezvous messages")
                else:
                    self.relay.named(self, frozenset(message.tags))


@dataclass(slots=True, eq=False)
class _Session:
    """Two connections that are spliced, or shall be."""

    asker: SecureLink
    target: Process
    answer: SecureLink | None = None
    answered: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)


class Relay:
    """The relay of a node. `run_link` takes what its endpoint accepts."""

    def __init__(
        self,
        endpoint: Endpoint,
        rng: Random,
        otherwise: Callable[[SecureLink], Awaitable[None]],
        *,
        rate: float | None = None,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        """`otherwise` runs links that are no business of the relay.

        What is carried stays within `rate`, bytes a second, and the endpoint's limits.
        """
        self._rng = rng
        self._otherwise = otherwise
        self._budgets = [Budget(rate), *endpoint.upload, *endpoint.download]
        self._max_sessions = max_sessions
        self._hosted: dict[Process, _Hosted] = {}
        self._tagged: dict[bytes, dict[_Hosted, None]] = {}
        self._sessions: set[_Session] = set()
        self._summoned: dict[bytes, _Session] = {}
        self._speechless = Strangers()  # connections on which nothing was said yet
        endpoint.features = (*endpoint.features, RENDEZVOUS, RELAY)

    @property
    def hosted(self) -> int:
        """How many processes can be reached through this relay now."""
        return len(self._hosted)

    @property
    def sessions(self) -> int:
        """How many connections are spliced, or asked for."""
        return len(self._sessions)

    async def run_link(self, link: SecureLink) -> None:
        """Serve a link that was accepted, until it ends."""
        features = link.hello.features if link.hello else ()
        if RENDEZVOUS in features:
            serve = self._host
        elif RELAY in features:
            serve = self._serve_connection
        else:
            await self._otherwise(link)
            return
        try:
            await serve(link)
        except FuryMeshError:
            pass  # it is gone, or broke a rule: nobody else is concerned
        finally:
            link.close()

    # --- rendezvous -------------------------------------------------------------------

    async def _host(self, link: SecureLink) -> None:
        hosted = _Hosted(self, link)
        before = self._hosted.get(hosted.process)
        if before is None and self._is_full(link):
            await link.say(m.Goodbye(m.Reason.BUSY, "no place at this relay"))
            return
        if before is not None:
            before.link.close(LinkClosedError("the same process has linked anew"))
            self._forget(before)
        self._hosted[hosted.process] = hosted
        try:
            await link.run(hosted)
        finally:
            self._forget(hosted)

    def _is_full(self, link: SecureLink) -> bool:
        links = [hosted.link for hosted in self._hosted.values()]
        return (
            len(links) >= MAX_HOSTED
            or sum(other.node_id == link.node_id for other in links) >= MAX_HOSTED_PER_NODE
            or _from_machine_of(link, links) >= MAX_HOSTED_PER_MACHINE
        )

    def _forget(self, hosted: _Hosted) -> None:
        self._retag(hosted, frozenset())
        if self._hosted.get(hosted.process) is hosted:
            del self._hosted[hosted.process]

    def _retag(self, hosted: _Hosted, tags: frozenset[bytes]) -> None:
        for tag in hosted.tags - tags:
            del self._tagged[tag][hosted]
            if not self._tagged[tag]:
                del self._tagged[tag]
        for tag in tags - hosted.tags:
            self._tagged.setdefault(tag, {})[hosted] = None
        hosted.tags = tags

    def named(self, hosted: _Hosted, tags: frozenset[bytes]) -> None:
        """A node takes part in these shares now: introduce it to others that do, and them to it."""
        if self._hosted.get(hosted.process) is not hosted:
            return  # another link of the same process has taken its place
        fresh = tags - hosted.tags
        self._retag(hosted, tags)
        room = MAX_INTRODUCED
        for tag in sorted(tags, key=lambda tag: tag not in fresh):
            if not room:
                break
            others = [other for other in self._tagged[tag] if other is not hosted]
            for other in self._rng.sample(others, min(len(others), INTRODUCTIONS, room)):
                room -= 1
                hosted.link.send(_introduction(tag, other.link))
                if tag in fresh:
                    other.link.send(_introduction(tag, hosted.link))

    # --- splices ----------------------------------------------------------------------

    async def _serve_connection(self, link: SecureLink) -> None:
        message = None
        with self._speechless.place(link.remote[0]), trio.move_on_after(HALF_OPEN_SECONDS):
            message = await link.hear()
        match message:
            case m.Reach():
                await self._reach(link, (NodeId(message.node_id), message.instance))
            case m.Answer():
                await self._answered(link, message.token)

    async def _reach(self, link: SecureLink, target: Process) -> None:
        """Connect an end with a process that is here, and carry their bytes."""
        refusal = self._refusal(link, target)
        if refusal is not None:
            await link.say(m.Goodbye(refusal))
            return
        session = _Session(link, target)
        self._sessions.add(session)
        try:
            await self._summon(session)
            if session.answer is None:
                await link.say(m.Goodbye(m.Reason.NOT_FOUND, "it did not come"))
                return
            with trio.move_on_after(HALF_OPEN_SECONDS) as late:
                for end in (session.answer, link):
                    await end.say(m.Spliced())
            if not late.cancelled_caught:
                await self._splice(link, session.answer)
        finally:
            self._sessions.discard(session)
            session.over.set()

    def _refusal(self, link: SecureLink, target: Process) -> m.Reason | None:
        if target not in self._hosted:
            return m.Reason.NOT_FOUND
        if target == (link.node_id, link.instance):
            return m.Reason.FORBIDDEN  # a loop
        askers = [session.asker for session in self._sessions]
        towards = [session.asker for session in self._sessions if session.target == target]
        full = (
            len(askers) >= self._max_sessions
            or sum(asker.node_id == link.node_id for asker in askers) >= MAX_SESSIONS_PER_NODE
            or _from_machine_of(link, askers) >= MAX_SESSIONS_PER_MACHINE
            or len(towards) >= MAX_SESSIONS_PER_TARGET
            or _from_machine_of(link, towards) >= MAX_SESSIONS_PER_PAIR
        )
        return m.Reason.BUSY if full else None

    async def _summon(self, session: _Session) -> None:
        """Tell the target, and wait until it has come or the time is over."""
        asker = session.asker
        token = os.urandom(codec.TOKEN_SIZE)
        where = self._hosted.get((asker.node_id, asker.instance))
        ip, port = (packed_ip(where.link.remote[0]), where.link.remote[1]) if where else (b"", 0)
        self._summoned[token] = session
        try:
            self._hosted[session.target].link.send(
                m.Summons(token, asker.node_id, asker.instance, ip, port)
            )
            with trio.move_on_after(HALF_OPEN_SECONDS):
                await session.answered.wait()
        finally:
            self._summoned.pop(token, None)

    async def _answered(self, link: SecureLink, token: bytes) -> None:
        session = self._summoned.get(token)
        if session is None or session.target != (link.node_id, link.instance):
            await link.say(m.Goodbye(m.Reason.NOT_FOUND, "nobody is waiting"))
            return
        del self._summoned[token]
        session.answer = link
        session.answered.set()
        await session.over.wait()

    async def _splice(self, one: SecureLink, other: SecureLink) -> None:
        assert one.socket is not None
        assert other.socket is not None
        await splice(
            one.socket,
            other.socket,
            budgets=self._budgets,
            idle=IDLE_SECONDS,
            total=SESSION_SECONDS,
        )


def _introduction(tag: bytes, link: SecureLink) -> m.Introduction:
    """The process at the other end of a rendezvous link, as others may find it."""
    host, port = link.remote
    return m.Introduction(tag, link.node_id, link.instance, packed_ip(host), port)


def _from_machine_of(link: SecureLink, links: list[SecureLink]) -> int:
    """How many links come from the machine of this one; loopback tells nothing."""
    host = link.remote[0]
    if is_loopback(host):
        return 0
    return sum(same_machine(other.remote[0]) == same_machine(host) for other in links)
