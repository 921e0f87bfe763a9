"""A small HTTP server of files with ranges, for tests: it counts, and misbehaves on request.

It shares no code with furymesh. As a program (ADDRESS PORT FOLDER LOG) it serves a
folder where nginx is not installed.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import trio

BLOCK = 64 * 1024

Content = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str  # as in the request line
    headers: Mapping[str, str]

    @property
    def range(self) -> tuple[int, int] | None:
        """First and last byte that are wanted."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2])) if found else None


def head(status: int, **fields: object) -> bytes:
    """The head of an answer; `content_range` stands for Content-Range."""
    lines = [f"HTTP/1.1 {status} {'OK' if status < 300 else 'No'}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass
class RangeServer:
    """Serves what `content` gives for a path; one file, unless it is a function."""

    content: Content
    tag: str = '"one"'
    misbehave: Callable[[Asked], bytes | None] = lambda asked: None  # raw bytes, then the end
    scheme: str = "http"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0  # bytes of files
    connections: int = 0
    open: int = 0  # requests under way
    most: int = 0  # of them at once
    breaks_after: int | None = None  # bytes of a body, then the connection ends
    pause: float = 0.0  # seconds before each block
    log: Path | None = None  # gets a line for each request: the bytes of the body

    def url(self, path: str = "/file", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def answer(self, asked: Asked) -> tuple[int, dict[str, object], bytes]:
        """Status, headers and body of an honest answer."""
        data = self.content(unquote(asked.path.partition("?")[0]))
        if data is None:
            return 404, {"content_length": 0}, b""
        wanted = asked.range
        if wanted is None or asked.headers.get("if-range", self.tag) != self.tag:
            return 200, {"content_length": len(data), "etag": self.tag}, data
        first, last = wanted[0], min(wanted[1], len(data) - 1)
        if first >= len(data):
            return 416, {"content_range": f"bytes */{len(data)}", "content_length": 0}, b""
        body = data[first : last + 1]
        place = f"bytes {first}-{last}/{len(data)}"
        return 206, {"content_range": place, "content_length": len(body), "etag": self.tag}, body

    async def handle(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        try:
            if isinstance(stream, trio.SSLStream):
                await stream.do_handshake()
                if stream.selected_alpn_protocol() == "h2":
                    await self._handle_h2(stream)
                    return
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = await stream.receive_some(BLOCK)
                    if not more:
                        return
                    buffer += bytes(more)
                request, _, buffer = buffer.partition(b"\r\n\r\n")
                if not await self._respond(stream, request.decode("latin-1")):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _respond(self, stream: trio.abc.Stream, request: str) -> bool:
        """Whether the connection may be used again."""
        line, *fields = request.split("\r\n")
        parts = [field.partition(":") for field in fields]
        headers = {name.lower(): value.strip() for name, _, value in parts}
        asked = Asked(line.split(" ")[1], headers)
        self.asked.append(asked)
        raw = self.misbehave(asked)
        if raw is not None:
            await stream.send_all(raw)
            return False
        self.open += 1
        self.most = max(self.most, self.open)
        sent = 0
        try:
            status, named, body = self.answer(asked)
            await stream.send_all(head(status, **named))
            for start in range(0, len(body), BLOCK):
                await trio.sleep(self.pause)
                block = body[start : start + BLOCK]
                if self.breaks_after is not None and start + len(block) > self.breaks_after:
                    block = block[: self.breaks_after - start]
                await stream.send_all(block)
                sent += len(block)
                if sent == self.breaks_after:
                    return False
        finally:
            self.open -= 1
            self.sent += sent
            if self.log is not None:
                with self.log.open("a") as log:
                    print(sent, asked.headers.get("range"), asked.path, file=log)
        return True

    async def _handle_h2(self, stream: trio.abc.Stream) -> None:
        """The same over HTTP/2; bodies must fit the client's windows."""
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        await stream.send_all(connection.data_to_send())
        while data := bytes(await stream.receive_some(BLOCK)):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    fields = {str(name): str(value) for name, value in event.headers or ()}
                    asked = Asked(fields[":path"], {**fields, "host": fields[":authority"]})
                    self.asked.append(asked)
                    status, named, body = self.answer(asked)
                    told = [(n.replace("_", "-"), str(v)) for n, v in named.items()]
                    connection.send_headers(event.stream_id, [(":status", str(status)), *told])
                    for start in range(0, len(body), 16384):
                        connection.send_data(event.stream_id, body[start : start + 16384])
                        self.sent += len(body[start : start + 16384])
                    connection.end_stream(event.stream_id)
            await stream.send_all(connection.data_to_send())


def one_file(data: bytes) -> Content:
    """The same bytes, whatever the path."""
    return lambda path: data


def folder(root: Path) -> Content:
    """The files of a folder."""

    def content(path: str) -> bytes | None:
        place = root / path.lstrip("/")
        return place.read_bytes() if place.is_file() and ".." not in path else None

    return content


def no_listing(root: Path, asked: Asked) -> bytes | None:
    """What nginx answers where a folder is asked for."""
    path = unquote(asked.path)
    if ".." in path or not (root / path.lstrip("/")).is_dir():
        return None
    if path.endswith("/"):
        return head(403, content_length=0)
    return head(301, location=f"{asked.path}/", content_length=0)


@asynccontextmanager
async def serving(
    server: RangeServer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[RangeServer]:
    """The server, on a free port, until the block is left."""
    listeners = await trio.open_tcp_listeners(server.port, host=host)
    server.port = listeners[0].socket.getsockname()[1]

    async def handle(stream: trio.SocketStream) -> None:
        if tls is None:
            await server.handle(stream)
        else:
            secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            await server.handle(secured)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield server
        nursery.cancel_scope.cancel()


async def main(*arguments: str) -> None:
    address, port, root, log = arguments
    server = RangeServer(folder(Path(root)), port=int(port), log=Path(log))
    server.misbehave = lambda asked: no_listing(Path(root), asked)
    async with serving(server, address):
        print("listening", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
