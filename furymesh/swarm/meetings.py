"""Direct links to processes that dial this one at the same time, as a relay has told both.

Always true: a process is dialled by one task at a time, and no more than MAX_MEETINGS
are at once; a link that comes of it is taken by one who awaits it or, if nobody does,
runs by itself.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import trio

from furymesh.core.errors import FuryMeshError, UnavailableError
from furymesh.core.ids import Process
from furymesh.net.addresses import may_lead
from furymesh.net.outgoing import connect
from furymesh.net.secure_link import SecureLink
from furymesh.swarm.swarm import Swarm

MAX_MEETINGS = 16  # processes dialled at once at a relay's word
MEET_SECONDS = 5.0  # of dialling while the other end does
TRY_SECONDS = 1.0  # for one such try, after which a lost SYN is sent anew
PAUSE_SECONDS = 0.2  # before the next, where one was refused at once
# Handshakes that failed at the place a relay named: whoever is there was not meant.
MAX_FAILURES = 5


@dataclass(slots=True, eq=False)
class Meeting:
    """Tries to get a direct link to one process."""

    link: SecureLink | None = None
    awaited: int = 0  # by so many who take the link themselves
    over: trio.Event = field(default_factory=trio.Event)


class Meetings:
    """Those that one relay has arranged; they run in `tasks`."""

    def __init__(self, swarm: Swarm, tasks: trio.Nursery) -> None:
        self.port = 0  # to dial from: the one at which the relay sees this process
        self.relay = ""  # its address
        self._swarm = swarm
        self._tasks = tasks
        self._with: dict[Process, Meeting] = {}

    def __len__(self) -> int:
        return len(self._with)

    def arrange(self, process: Process, place: tuple[str, int]) -> Meeting:
        """Dial a process that dials this one at the same time, unless that is under way.

        Not where a relay on the internet says that it is in a private network: that would
        be another one than this node's.
        """
        meeting = self._with.get(process)
        if meeting is None:
            meeting = Meeting()
            if may_lead(place[0], self.relay) and len(self._with) < MAX_MEETINGS:
                self._with[process] = meeting
                self._tasks.start_soon(self._try, meeting, process, place)
            else:
                meeting.over.set()
        return meeting

    async def _try(self, meeting: Meeting, process: Process, place: tuple[str, int]) -> None:
        try:
            link = await self._met(process, place)
        finally:
            del self._with[process]
            meeting.over.set()
        if link is not None and meeting.awaited:
            meeting.link = link
        elif link is not None:
            await self._swarm.run_link(link)

    async def _met(self, process: Process, place: tuple[str, int]) -> SecureLink | None:
        """A direct link to a process, None if there is no way."""
        deadline = trio.current_time() + MEET_SECONDS
        failures = 0
        while trio.current_time() < deadline and failures < MAX_FAILURES:
            try:
                sock = await connect(place, local_port=self.port, seconds=TRY_SECONDS)
            except UnavailableError:
                await trio.sleep(PAUSE_SECONDS)
                continue
            with suppress(FuryMeshError):
                return await self._swarm.endpoint.meet(sock, place, process)
            failures += 1
            await trio.sleep(PAUSE_SECONDS)
        return None
