"""Crowds that connect and do nothing good with it, kept up while a test looks on."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.errors import FuryMeshError
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.wire import messages as m
from furymesh.wire.authentication import frame_message
from tests.beside import beside
from tests.hostile.attacker import connect, new_handshake, wire

# Between two first connects: of more than its backlog at once a listener hears nothing.
APART_SECONDS = 0.002
AGAIN_SECONDS = 1.0  # before one that was cut off comes back
BYTE_SECONDS = 1.0  # from one byte of a handshake that trickles to the next
ASK_SECONDS = 1.0  # from one question of who does not read to the next
CROWD = "127.0.0.66"  # another machine than that of honest peers, as far as a node can see
SMALL_BUFFER = 4096  # bytes that the kernel takes for one who does not read


@dataclass(slots=True)
class Siege:
    """What is attacked, and how it has gone so far."""

    address: Address
    file_id: FileId
    lasted: list[float] = field(default_factory=list)  # seconds until the node closed each
    come: int = 0

    @contextmanager
    def stay(self) -> Iterator[None]:
        """Count one that has come, and how long it lasts until the node cuts it off."""
        self.come += 1
        begun = trio.current_time()
        with suppress(FuryMeshError, OSError):
            yield
        self.lasted.append(trio.current_time() - begun)


Besieger = Callable[[Siege], Awaitable[None]]


async def _until_closed(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            await trio.lowlevel.wait_readable(sock)
            if not sock.recv(65536):
                return


async def idle(siege: Siege) -> None:
    """Connect, and say nothing."""
    with await connect(siege.address, CROWD) as sock, siege.stay():
        await _until_closed(sock)


async def trickling(siege: Siege) -> None:
    """A good handshake, at one byte a second."""
    raw = frame_message(new_handshake(X25519PrivateKey.generate()).write_message(b""))
    with await connect(siege.address, CROWD) as sock, siege.stay():

        async def trickle() -> None:
            with suppress(OSError):
                for at in range(len(raw)):
                    sock.send(raw[at : at + 1])
                    await trio.sleep(BYTE_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            await _until_closed(sock)
            nursery.cancel_scope.cancel()


async def useless(siege: Siege) -> None:
    """A link without any share."""
    async with wire(siege.address, source=CROWD) as link:
        with siege.stay():
            while True:
                await link.hear()


async def deaf(siege: Siege) -> None:
    """Join, ask for everything, and read nothing of it."""
    async with wire(siege.address, source=CROWD, room=SMALL_BUFFER) as link:
        number = await link.join(siege.file_id)
        with siege.stay():
            await link.say(m.Request(number, tuple(range(32))))
            while True:
                await link.say(m.GetManifest(number, True, (0,) * 32))
                await trio.sleep(ASK_SECONDS)


async def _keep_up(besieger: Besieger, siege: Siege, patient: bool) -> None:
    while True:
        with suppress(FuryMeshError, OSError, trio.TooSlowError):
            await besieger(siege)
            if patient:
                return
        await trio.sleep(AGAIN_SECONDS)


@contextmanager
def besieged(
    address: Address, file_id: FileId, crowd: Mapping[Besieger, int], *, patient: bool = False
) -> Iterator[Siege]:
    """Besiegers in a thread; who is cut off comes again after a while, unless `patient`."""
    siege = Siege(address, file_id)

    async def run(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            for besieger, count in crowd.items():
                for _ in range(count):
                    nursery.start_soon(partial(_keep_up, besieger, siege, patient))
                    await trio.sleep(APART_SECONDS)

    with beside(run):
        yield siege
