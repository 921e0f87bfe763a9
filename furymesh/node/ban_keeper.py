"""Sees that bans get to disk, and come back from there."""

from __future__ import annotations

import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.storage.bans import MAX_BANS, Ban, BanStore
from furymesh.swarm.swarm import Swarm


class BanKeeper:
    """Keeps the bans of a swarm in its data directory.

    Always true: a ban counts from when it is made; `_unsaved` are those that a
    crash now would lose.
    """

    def __init__(self, swarm: Swarm, store: BanStore) -> None:
        self._swarm = swarm
        self._store = store
        self._unsaved: list[Ban] = []
        self._news = trio.Event()
        swarm.admission.bans.keep = self._keep

    async def restore(self) -> list[str]:
        """Take up the bans on disk; a line if some are damaged or cannot be read."""
        try:
            bans, problems = await trio.to_thread.run_sync(self._store.load)
        except EnvironmentFault as error:
            return [str(error)]
        self._swarm.admission.bans.restore(bans)
        return problems

    async def run(self) -> None:
        """Save what is new until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self.save()

    async def save(self) -> None:
        """Save what is not saved yet; a disk that refuses is reported, and costs no more."""
        while self._unsaved:
            ban = self._unsaved[0]
            try:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._store.add, ban)
            except EnvironmentFault as error:
                self._swarm.report(f"a ban will not outlive this process: {error}")
            if self._unsaved and self._unsaved[0] is ban:
                del self._unsaved[0]

    def _keep(self, ban: Ban) -> None:
        self._unsaved.append(ban)
        del self._unsaved[:-MAX_BANS]
        self._news.set()
