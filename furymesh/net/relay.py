"""A relay: brings together nodes that cannot dial each other, and carries their bytes.

Nodes keep a *rendezvous* link to it and name their discovery tags there; those that
name the same tag are introduced to each other: see `rendezvous`. Whoever wants a link to
a node that is here dials the relay anew; the node is summoned, dials too, and the two
connections are spliced. The ends shake hands through the splice, so the relay sees
ciphertext only.

Always true: only a node whose rendezvous link lives is summoned, a token is good once
and for that node alone, nobody has more places than the limits below allow, and a full
house makes way for who has fewer, or for anybody once GRACE_SECONDS have passed.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from random import Random

import trio

from furymesh.core.errors import FuryMeshError
from furymesh.core.ids import NodeId, Process
from furymesh.net.addresses import packed_ip
from furymesh.net.connect import Endpoint
from furymesh.net.rendezvous import MAX_HOSTED, Rendezvous
from furymesh.net.secure_link import SecureLink
from furymesh.net.splice import Carried, splice
from furymesh.net.strangers import Strangers
from furymesh.net.throttle import Budget
from furymesh.wire import codec
from furymesh.wire import messages as m

RENDEZVOUS = "rendezvous"  # features in Hello: what a link to a relay is for,
RELAY = "relay"  # and what a relay offers

MAX_SESSIONS = 64  # splices, and those that ask for one; unless set otherwise
MAX_SESSIONS_PER_NODE = 8  # asked for by one node: the links of a download, not all places
MAX_SESSIONS_PER_MACHINE = 16  # asked for from one address, where identities cost nothing
MAX_SESSIONS_PER_TARGET = 16  # towards one process, which does not ask for them
MAX_SESSIONS_PER_PAIR = 4  # splices from one machine to one process: others want it, too
# In a full house the session that carries least makes way for a newcomer, unless it is
# young: it shakes hands, or what it carries comes in turns.
GRACE_SECONDS = 60.0
HALF_OPEN_SECONDS = 10.0  # for a word that is due, and for the summoned to come
IDLE_SECONDS = 60.0  # without a byte; a link that lives pings every 5 s
SESSION_SECONDS = 6 * 3600.0  # then whoever still needs it asks again, and others have a turn
# One of so many files that the process may open is for a rendezvous link, and one of so
# many for a session, which takes two: half are left for what the node does besides.
FILES_PER_HOSTED = 4
FILES_PER_SESSION = 8


@dataclass(slots=True, eq=False)
class _Session:
    """Two connections that are spliced, or shall be."""

    asker: SecureLink
    party: str  # of its link
    target: Process
    answer: SecureLink | None = None
    answered: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    begun: float = field(default_factory=trio.current_time)
    carried: Carried = field(default_factory=Carried)


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
        self._otherwise = otherwise
        self._budgets = [Budget(rate), *endpoint.upload, *endpoint.download]
        self.max_sessions = _within_files(max_sessions, FILES_PER_SESSION)
        self._rendezvous = Rendezvous(rng, _within_files(MAX_HOSTED, FILES_PER_HOSTED))
        self._sessions: set[_Session] = set()
        self._summoned: dict[bytes, _Session] = {}
        self._speechless = Strangers()  # connections on which nothing was said yet
        endpoint.features = (*endpoint.features, RENDEZVOUS, RELAY)

    @property
    def hosted(self) -> int:
        """How many processes can be reached through this relay now."""
        return len(self._rendezvous)

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

    async def _host(self, link: SecureLink) -> None:
        hosted = self._rendezvous.enter(link)
        if hosted is None:
            await link.say(m.Goodbye(m.Reason.BUSY, "no place at this relay"))
            return
        try:
            await link.run(hosted)
        finally:
            self._rendezvous.leave(hosted)

    async def _serve_connection(self, link: SecureLink) -> None:
        message = None
        with self._speechless.place(link.remote[0]), trio.move_on_after(HALF_OPEN_SECONDS):
            message = await link.hear()
        match message:
            case m.Reach():
                await self._reach(link, (NodeId(message.node_id), message.instance))
            case m.Answer():
                await self._answered(link, message.token)

    # --- who asks -----------------------------------------------------------------------

    async def _reach(self, link: SecureLink, target: Process) -> None:
        """Connect an end with a process that is here, and carry their bytes."""
        session = _Session(link, link.party, target)
        refusal = self._refusal(session)
        if refusal is not None:
            await link.say(m.Goodbye(refusal))
            return
        self._sessions.add(session)
        try:
            with session.scope:
                await self._run(session)
        finally:
            self._sessions.discard(session)
            session.over.set()

    async def _run(self, session: _Session) -> None:
        await self._summon(session)
        if session.answer is None:
            await session.asker.say(m.Goodbye(m.Reason.NOT_FOUND, "it did not come"))
            return
        with trio.move_on_after(HALF_OPEN_SECONDS) as late:
            for end in (session.answer, session.asker):
                await end.say(m.Spliced())
        if not late.cancelled_caught:
            await self._splice(session, session.asker, session.answer)

    async def _summon(self, session: _Session) -> None:
        """Tell the target, and wait until it has come or the time is over."""
        asker, target = session.asker, self._rendezvous.link_to(session.target)
        token = os.urandom(codec.TOKEN_SIZE)
        where = self._rendezvous.link_to(asker.process)
        ip, port = (packed_ip(where.remote[0]), where.remote[1]) if where else (b"", 0)
        self._summoned[token] = session
        try:
            assert target is not None  # or it would have been refused
            target.send(m.Summons(token, asker.node_id, asker.instance, ip, port))
            with trio.move_on_after(HALF_OPEN_SECONDS):
                await session.answered.wait()
        finally:
            self._summoned.pop(token, None)

    async def _splice(self, session: _Session, one: SecureLink, other: SecureLink) -> None:
        assert one.socket is not None
        assert other.socket is not None
        session.carried = Carried()
        await splice(
            one.socket,
            other.socket,
            budgets=self._budgets,
            carried=session.carried,
            idle=IDLE_SECONDS,
            total=SESSION_SECONDS,
        )

    # --- who was summoned ---------------------------------------------------------------

    async def _answered(self, link: SecureLink, token: bytes) -> None:
        session = self._summoned.get(token)
        if session is None or session.target != link.process:
            await link.say(m.Goodbye(m.Reason.NOT_FOUND, "nobody is waiting"))
            return
        del self._summoned[token]
        session.answer = link
        session.answered.set()
        await session.over.wait()

    # --- places -------------------------------------------------------------------------

    def _refusal(self, newcomer: _Session) -> m.Reason | None:
        """Why there is no place for a session; None if there is, or one was made."""
        link, target = newcomer.asker, newcomer.target
        if self._rendezvous.link_to(target) is None:
            return m.Reason.NOT_FOUND
        if target == link.process:
            return m.Reason.FORBIDDEN  # a loop
        towards = [session for session in self._sessions if session.target == target]
        mates = [session for session in self._sessions if session.party == newcomer.party]
        if (
            sum(session.asker.node_id == link.node_id for session in self._sessions)
            >= MAX_SESSIONS_PER_NODE
            or len(mates) >= MAX_SESSIONS_PER_MACHINE
            or sum(session.target == target for session in mates) >= MAX_SESSIONS_PER_PAIR
        ):
            return m.Reason.BUSY
        # What leaves a place towards the target leaves one in the house.
        if len(towards) >= MAX_SESSIONS_PER_TARGET:
            return None if self._make_way(newcomer, towards) else m.Reason.BUSY
        if len(self._sessions) >= self.max_sessions:
            return None if self._make_way(newcomer, self._sessions) else m.Reason.BUSY
        return None

    def _make_way(self, newcomer: _Session, crowd: Collection[_Session]) -> bool:
        """End that session of a crowd that carries least of late; False if none may go.

        Those may that are old enough, and those of who has most, if the newcomer will
        still have fewer: or who asks ever again would keep a house full of young ones.
        """
        old = trio.current_time() - GRACE_SECONDS
        held = Counter(session.party for session in crowd)
        most = max(held.values(), default=0)
        unfair = most > held[newcomer.party] + 1
        may_go = [s for s in crowd if s.begun <= old or (unfair and held[s.party] == most)]
        least = min(may_go, key=lambda session: session.carried.lately(), default=None)
        if least is None:
            return False
        self._sessions.discard(least)
        least.scope.cancel()
        return True


def _within_files(most: int, per: int) -> int:
    """At most so many, and one for every `per` files that this process may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if files == resource.RLIM_INFINITY else min(most, files // per)
