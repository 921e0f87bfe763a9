"""A client's link at the server: what it says waits here until the disk has time for it.

Always true: what waits is within the windows of the protocol, because the link
breaks the moment it is not.
"""

from __future__ import annotations

from collections import deque

import trio

from furymesh.net.handler import Shareless
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m
from furymesh.wire.exchange import Exchange

Item = tuple[m.SyncMessage, memoryview | None]  # and the bytes that came with it


class Guest(Shareless):
    """The handler of the link; `turn` is set when it is this client's."""

    def __init__(self, link: SecureLink) -> None:
        self.link = link
        self.exchange = link.session.exchange = Exchange(client=False)
        self.turn = trio.Event()
        self.worked_at = trio.current_time()  # when it last announced or sent something
        self._inbox: deque[Item] = deque()
        self._arriving = memoryview(b"")
        self._news = trio.Event()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits."""
        return not self._inbox

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Ping):
            link.pong(message.nonce)
        elif isinstance(message, m.SyncMessage):
            self._take(message, None)

    def sink(self, link: SecureLink, data: m.ArchiveData) -> memoryview:
        self._arriving = memoryview(bytearray(data.length))
        return self._arriving

    def filled(self, link: SecureLink, data: m.ArchiveData) -> None:
        self._take(data, self._arriving)

    def _take(self, message: m.SyncMessage, content: memoryview | None) -> None:
        # An empty page says only that the client is at work; see `server.SILENT_SECONDS`.
        if not isinstance(message, m.ArchiveInfo) or message.paths or message.last:
            self.worked_at = trio.current_time()
        self._inbox.append((message, content))
        self._news.set()

    async def heard(self) -> list[Item]:
        """All that came since; waits for something."""
        while not self._inbox:
            self._news = trio.Event()
            await self._news.wait()
        items = list(self._inbox)
        self._inbox.clear()
        return items

    def say(self, message: m.SyncMessage) -> None:
        self.exchange.sent(message)
        self.link.send(message)
