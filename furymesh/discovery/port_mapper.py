"""A port that the router forwards to this machine: by UPnP-IGD, NAT-PMP or PCP.

A process of its own asks for it, has it renewed and takes it back: `router_child`. What
a router says is a hint, for anybody on the network can answer in its place: no address
but a public one is passed on, and who is reached there is for the secure link to find out.

Always true: `mapping` is what is granted in the network where this machine is now.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from furymesh import __version__
from furymesh.core.errors import EnvironmentFault
from furymesh.discovery.source import Mapping
from furymesh.net.addresses import is_public
from furymesh.net.interfaces import address_towards
from furymesh.net.tasks import open_tasks

CHILD = Path(__file__).with_name("router_child.py")
ANY = "0.0.0.0"
INTERNET = "192.0.2.1"  # RFC 5737: nobody's, and reached as everybody out there is
LOOK_SECONDS = 10.0  # between two looks whether this machine is in another network
# libtorrent asks for a few seconds. A router may be told later to grant it.
RETRY_SECONDS = 15 * 60.0
STOP_SECONDS = 3.0  # for the process to end, before it is killed
MAX_LINE = 4096  # bytes; what it says has some hundred


def address_behind_router(host: str, gateway: str = "") -> str:
    """This machine's address in a network that a router parts from the internet; "" if none.

    `host` is where it listens, 0.0.0.0 for all addresses. `gateway` is that router, where
    it is not the one by which the internet is reached.
    """
    own = address_towards(gateway or INTERNET, 9) or ""
    return own if host in (ANY, own) and not is_public(own) else ""


class PortMapper:
    """Has a TCP port forwarded while it runs."""

    def __init__(
        self, port: int, host: str, changed: Callable[[Mapping | None], None], gateway: str = ""
    ) -> None:
        """`port` is listened on at `host`, 0.0.0.0 for all addresses. `changed` is called
        with each new mapping, None when there is none any more. `gateway` is the router
        to ask by PCP and NAT-PMP, that of the default route unless given.
        """
        self.mapping: Mapping | None = None
        self.troubles: dict[str, str] = {}  # what a router said instead, by the protocol
        self._port = port
        self._host = host
        self._changed = changed
        self._gateway = gateway

    async def run(self) -> None:
        """Have it forwarded until cancelled; then it is taken back.

        Raises EnvironmentFault if libtorrent cannot be loaded, or no process be started.
        """
        while True:
            own = address_behind_router(self._host, self._gateway)
            if own:
                await self._run_at(own)
                self._tell(None)  # but not to one who is about to end
            await trio.sleep(LOOK_SECONDS)

    async def _run_at(self, own: str) -> None:
        """Have it forwarded to `own`, until this machine has another address."""
        child = await self._start(own)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            async with open_tasks() as nursery:
                nursery.start_soon(self._watch_network, own, nursery.cancel_scope)
                await self._read(child.stdout)
                nursery.cancel_scope.cancel()  # it has ended by itself
        finally:
            with trio.CancelScope(shield=True):
                await child.stdin.aclose()
                with trio.move_on_after(STOP_SECONDS):
                    await child.wait()
                child.kill()
                await child.wait()
                await child.stdout.aclose()

    async def _start(self, own: str) -> trio.Process:
        asked = (own, str(self._port), self._gateway, f"furymesh/{__version__}")
        try:
            return await trio.lowlevel.open_process(
                [sys.executable, "-P", str(CHILD), *asked],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            reason = error.strerror or error
            raise EnvironmentFault(f"no process to ask the router: {reason}") from None

    async def _watch_network(self, own: str, scope: trio.CancelScope) -> None:
        retry = trio.current_time() + RETRY_SECONDS
        while address_behind_router(self._host, self._gateway) == own and (
            self.mapping is not None or trio.current_time() < retry
        ):
            await trio.sleep(LOOK_SECONDS)
        scope.cancel()

    async def _read(self, lines: trio.abc.ReceiveStream) -> None:
        """Take in what the process says, until it ends; raises EnvironmentFault."""
        buffer = bytearray()
        while len(buffer) < MAX_LINE and (some := await lines.receive_some()):
            buffer += some
            while (end := buffer.find(b"\n")) >= 0:
                try:
                    self._take(json.loads(buffer[:end]))
                except (ValueError, LookupError, TypeError):
                    return  # it is not itself any more: another one is started
                del buffer[: end + 1]

    def _take(self, state: dict[str, Any]) -> None:
        if "failed" in state:
            raise EnvironmentFault(
                f"libtorrent cannot ask the router ({state['failed']}): install furymesh[dht]"
                " again, or set discovery.port_mapping to false"
            )
        ports = [int(port) for port in state["ports"] if 0 < port < 1 << 16]
        host = str(state["host"])
        host = host if is_public(host) else ""
        self.troubles = {str(name): str(why) for name, why in dict(state["troubles"]).items()}
        self._tell(Mapping(min(ports, key=self._port.__ne__), host) if ports else None)

    def _tell(self, mapping: Mapping | None) -> None:
        if mapping != self.mapping:
            self.mapping = mapping
            self._changed(mapping)
