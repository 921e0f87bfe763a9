"""When the members of a download are told of chunks that it has gained."""

from __future__ import annotations

import trio

from furymesh.swarm.share import Share

# News of chunks that found no company on its way to a member leaves alone, about
# four together. Within these bounds the delay costs a swarm next to nothing, and
# each message that is saved spares every member a wake-up.
MIN_NEWS_SECONDS = 0.005
MAX_NEWS_SECONDS = 0.1
NEWS_CHUNKS = 4


class Announcer:
    """Sees that no news of one download waits for long."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._gained = 0
        self._news = trio.Event()

    def gained(self, chunks: int) -> None:
        """So many chunks more are stored."""
        self._gained += chunks
        self._news.set()

    async def run(self) -> None:
        """Tell everybody soon after each gain, until cancelled."""
        pause = MIN_NEWS_SECONDS
        last, told = trio.current_time(), self._gained
        while True:
            await self._news.wait()
            await trio.sleep(pause)
            self._news = trio.Event()
            self._share.announce()
            now, done = trio.current_time(), self._gained
            each = (now - last) / max(done - told, 1)
            pause = min(max(NEWS_CHUNKS * each, MIN_NEWS_SECONDS), MAX_NEWS_SECONDS)
            last, told = now, done
