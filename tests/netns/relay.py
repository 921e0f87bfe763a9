"""A TCP delay line: what goes in on one side comes out later on the other.

Run as a process (`python relay.py --target HOST:PORT --delay 0.1`); it prints one
JSON object a line: `listening` first, `mark` when the bytes sent towards the
clients pass `--mark`, `closed` with running totals after each connection. It stops when
its standard input ends, so it cannot outlive whoever started it. `DelayLine` does
the starting and stopping.

It delays bytes, not packets: kernels on both sides see a near peer, so window
growth is not slowed, but every request waits a full round trip for its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PIECE = 256 * 1024  # bytes a read; large enough for gigabytes a second
IN_FLIGHT = 64 * 1024 * 1024  # bytes a direction: 1 Gb/s at 500 ms; beyond it reading pauses
BACKLOG = 512  # connections not yet accepted; a test opens them in bursts
ANSWER_TIMEOUT = 20.0  # seconds a started relay may take to say where it listens


def _say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class _Totals:
    """Bytes through the relay so far, both ways, over all connections."""

    def __init__(self, mark: int) -> None:
        self.to_target = 0
        self.to_client = 0
        self._mark = mark

    def count(self, size: int, towards_client: bool) -> None:
        if not towards_client:
            self.to_target += size
            return
        before, self.to_client = self.to_client, self.to_client + size
        if before < self._mark <= self.to_client:
            _say("mark", to_client=self.to_client)


class _Direction:
    """One way of one connection: a reader, a queue of due times and a writer."""

    def __init__(self, delay: float, totals: _Totals, towards_client: bool) -> None:
        self._delay = delay
        self._totals = totals
        self._towards_client = towards_client
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._held = 0
        self._space = asyncio.Event()
        self._space.set()

    async def read(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._space.wait()
            data = await loop.sock_recv(source, PIECE)
            self._totals.count(len(data), self._towards_client)
            self._held += len(data)
            if self._held >= IN_FLIGHT:
                self._space.clear()
            self._queue.put_nowait((loop.time() + self._delay, data))
            if not data:
                return

    async def write(self, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._queue.get()
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)  # the delay is what the line is for
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, data)
            self._held -= len(data)
            if self._held < IN_FLIGHT:
                self._space.set()


async def _carry(
    client: socket.socket, target: tuple[str, int], delay: float, totals: _Totals
) -> None:
    loop = asyncio.get_running_loop()
    server = socket.socket(client.family, socket.SOCK_STREAM)
    try:
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.sleep(delay)  # so long the first segment is on its way
        await loop.sock_connect(server, target)
        there = _Direction(delay, totals, towards_client=False)
        back = _Direction(delay, totals, towards_client=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(there.read(client))
            group.create_task(there.write(server))
            group.create_task(back.read(server))
            group.create_task(back.write(client))
    except* OSError:
        for end in (client, server):  # one side broke: the other sees a reset, not an end
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        client.close()
        server.close()
        _say("closed", to_target=totals.to_target, to_client=totals.to_client)


async def _serve(listener: socket.socket, target: tuple[str, int], delay: float, mark: int) -> None:
    loop = asyncio.get_running_loop()
    totals = _Totals(mark)
    stop = asyncio.Event()
    loop.add_reader(sys.stdin, stop.set)  # only the end of the input ever arrives
    host, port = listener.getsockname()[:2]
    _say("listening", host=host, port=port)

    async def accept() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await loop.sock_accept(listener)
                group.create_task(_carry(client, target, delay, totals))

    accepting = asyncio.create_task(accept())
    await stop.wait()
    accepting.cancel()
    with suppress(asyncio.CancelledError):
        await accepting


class DelayLine:
    """A running relay to `target` (host:port) adding `delay` seconds each way.

    `prefix` starts it elsewhere, for example `host.command([])` of a lab host;
    `listen` is the address it listens on there. Use as a context manager.
    """

    def __init__(
        self,
        target: str,
        delay: float,
        *,
        listen: str = "127.0.0.1",
        mark: int = 0,
        prefix: Sequence[str] = (),
    ) -> None:
        options = ["--target", target, "--delay", str(delay), "--mark", str(mark)]
        script = str(Path(__file__).resolve())
        self._command = [*prefix, sys.executable, script, "--listen", f"{listen}:0", *options]
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.address = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            first = self.event(ANSWER_TIMEOUT)
        except BaseException:
            self._stop()
            raise
        self.address = f"{first['host']}:{first['port']}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def event(self, timeout: float) -> dict[str, Any]:
        """The relay's next event. Raises TimeoutError after `timeout` seconds."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"the relay said nothing for {timeout} s") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(ANSWER_TIMEOUT)
        self._reader.join(ANSWER_TIMEOUT)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="TCP delay line")
    parser.add_argument("--listen", type=_endpoint, default=("127.0.0.1", 0))
    parser.add_argument("--target", type=_endpoint, required=True)
    parser.add_argument("--delay", type=float, required=True, help="seconds, each way")
    parser.add_argument("--mark", type=int, default=0, help="report when so many bytes went back")
    options = parser.parse_args()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(options.listen)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        asyncio.run(_serve(listener, options.target, options.delay, options.mark))


if __name__ == "__main__":
    main()
