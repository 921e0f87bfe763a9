"""Finding peers for one download: whom to dial, and when to give up.

Always true: an address is dialled by one task at a time, and not at all while
another link leads to the same process.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from furymesh.core.errors import FuryMeshError, UnavailableError
from furymesh.core.link import Address
from furymesh.core.scheduler import TICK
from furymesh.discovery.book import Candidate
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.events import Attempt, Connected, Event, Trouble, Waiting
from furymesh.swarm.mirrors import CONNECTING
from furymesh.swarm.progress import IdleClock
from furymesh.swarm.share import Share
from furymesh.wire import messages as m

DEGREE = 10  # links this end dials for a download; more add overhead, not speed
DIALS_AT_ONCE = 5
# Before an address is dialled again behind which is a process that refuses us.
UNWANTED_SECONDS = 60.0
TWIN_SECONDS = 1.0  # between two looks whether the other link to a process still lives
# Between two looks for somebody to dial when nobody new was heard of, or whether time is up.
LOOK_SECONDS = 0.5
WAITING_SECONDS = 3.0  # between two words about having no peer
TROUBLE_SECONDS = 2.0  # between two looks at what is wrong with finding some
# Without anything useful from those who are linked: whoever else was named is needed.
HELPLESS_SECONDS = 3.0
MAX_KEPT_PEERS = 64  # addresses in resume data: enough to find the swarm again
SHOWN_REASONS = 5  # in one line about why nobody could help


class Dialler:
    """Dials peers for one share from the swarm's address book."""

    def __init__(self, share: Share, clock: IdleClock, tell: Callable[[Event], None]) -> None:
        self._share = share
        self._swarm = share.swarm
        self._book = share.swarm.book
        self._admission = share.swarm.admission
        self._clock = clock
        self._tell = tell
        self._dialling = 0
        self._dialled: set[SecureLink] = set()
        self._look = trio.Event()  # there may be somebody to dial, or a place for one more
        self._over = False
        self._troubles: set[str] = set()  # that were told
        self._next_trouble = 0.0  # when to look for more

    async def run(self, links: trio.Nursery) -> None:
        """Keep about DEGREE links, trying the best addresses first; they run in `links`."""
        self._book.watch(self._share.file_id, self.look)
        try:
            while True:
                self._look = trio.Event()
                self._swarm.joining.ask(self._share)
                now = self._swarm.now()
                while (
                    self._dialling < DIALS_AT_ONCE
                    and len(self._dialled) < DEGREE
                    and self._admission.may_dial()
                ):
                    helped = self._clock.idle < HELPLESS_SECONDS
                    candidate = self._book.due(self._share.file_id, now, helped=helped)
                    if candidate is None:
                        break
                    candidate.busy = True
                    if not candidate.failures:
                        candidate.outcome = CONNECTING
                    self._dialling += 1
                    self._admission.dialling += 1
                    links.start_soon(self._dial, candidate)
                with trio.move_on_after(LOOK_SECONDS if self._share.members else TICK):
                    await self._look.wait()
        finally:
            self._book.watch(self._share.file_id, None)
            self._over = True

    def look(self) -> None:
        """See at once whether there is somebody to dial."""
        self._look.set()

    async def give_up_when_idle(self, timeout: float) -> None:
        """Tell of waiting and of its reasons; raises UnavailableError after `timeout` seconds."""
        last_word = self._swarm.now()
        while True:
            await trio.sleep(min(max(timeout - self._clock.idle, TICK), LOOK_SECONDS))
            now, idle = self._swarm.now(), self._clock.idle
            self._tell_troubles(now)
            if idle > WAITING_SECONDS and now - last_word >= WAITING_SECONDS:
                last_word = now
                self._tell(Waiting(idle, timeout, self._attempts(), self._looked()))
            if idle >= timeout:
                raise UnavailableError(self._nobody(timeout))

    def worth_keeping(self, helpers: dict[tuple[str, int], Address]) -> tuple[str, ...]:
        """Whom a later run should ask: who helped, then who was named."""
        kept = dict(helpers)
        for candidate in self._book.candidates(self._share.file_id):
            if candidate.source.named:
                address = candidate.address
                kept.setdefault((address.host, address.port), address)
        return tuple(map(str, kept.values()))[:MAX_KEPT_PEERS]

    # --- one address ----------------------------------------------------------------

    async def _dial(self, candidate: Candidate) -> None:
        book, endpoint, file_id = self._book, self._swarm.endpoint, self._share.file_id
        try:
            reach = candidate.other_way()
            link = await (reach() if reach else endpoint.dial(candidate.address))
        except FuryMeshError as error:
            book.failed(file_id, candidate, self._swarm.now(), str(error))
            return
        finally:
            self._dialling -= 1
            self._admission.dialling -= 1
            self.look()
        process = link.process
        if process == endpoint.process:
            link.close()
            book.drop(file_id, candidate)
            return
        if not self._admission.make_room(link):
            link.close()
            book.failed(file_id, candidate, self._swarm.now(), "every connection is in use")
            return
        self._dialled.add(link)
        book.connected(candidate, process)
        self._swarm.joining.ask(self._share)  # where another link leads there, which stays
        link.found = candidate.source.label
        self._tell(Connected(link.node_id, str(Address(*link.remote)), link.found))
        try:
            await self._swarm.run_link(link)
        finally:
            self._dialled.discard(link)
            self.look()
        if link.traffic.payload_received and link.farewell is not m.Reason.BAD_DATA:
            book.helped(candidate)
        if link.farewell is m.Reason.DUPLICATE:
            candidate.outcome = "connected by another link"
            while not self._over and process in self._swarm.links:
                await trio.sleep(TWIN_SECONDS)
        outcome = str(link.closed_because or "closed")
        if self._admission.is_banned(link):
            outcome = "banned for a day: it sent a bad chunk"
        book.failed(file_id, candidate, self._swarm.now(), outcome)
        if link.farewell in (m.Reason.FORBIDDEN, m.Reason.BUSY):
            candidate.not_before += UNWANTED_SECONDS

    # --- telling --------------------------------------------------------------------

    def _tell_troubles(self, now: float) -> None:
        """Tell what is wrong with ways to find peers, each once."""
        if now < self._next_trouble:
            return
        self._next_trouble = now + TROUBLE_SECONDS
        for trouble in self._swarm.troubles():
            if trouble not in self._troubles:
                self._troubles.add(trouble)
                self._tell(Trouble(trouble))

    def _attempts(self) -> tuple[Attempt, ...]:
        mirrors = (Attempt(mirror.place, mirror.state) for mirror in self._share.mirrors)
        peers = (
            Attempt(str(candidate.address), candidate.outcome)
            for candidate in self._book.candidates(self._share.file_id)
        )
        return (*mirrors, *peers)

    def _looked(self) -> str:
        places = [source.place for source in self._swarm.looking(self._share.file_id)]
        return " and ".join(filter(None, [", ".join(places[:-1]), *places[-1:]]))

    def _nobody(self, timeout: float) -> str:
        seconds = f"{timeout:g} s"
        tried = "; ".join(f"{a.address} ({a.outcome})" for a in self._attempts()[:SHOWN_REASONS])
        if self._share.members:
            mirrors = "".join(f"; {one.place}: {one.state}" for one in self._share.mirrors)
            return f"the connected peers sent nothing for {seconds}{mirrors}; progress is kept"
        if tried:
            return f"no peer could help within {seconds}; tried {tried}; progress is kept"
        looked = self._looked()
        if not looked:
            return "no peer is known, and none is looked for: name one with --peer"
        troubles = "; ".join(self._swarm.troubles()[:SHOWN_REASONS])
        if troubles:
            looked += f" ({troubles}): check the network and the id, or name one with --peer"
        else:
            looked += ": check the id, or name one with --peer"
        return f"nobody who has it was found {looked}"
