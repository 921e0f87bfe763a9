"""A relay that means harm: it can refuse to carry, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from furymesh.core.errors import FuryMeshError
from furymesh.net import relay as relay_module
from furymesh.net.splice import Carried, splice
from furymesh.net.throttle import Budget
from furymesh.swarm import meetings
from furymesh.swarm.download import Terms
from tests.unit.swarm.lab import blob, manifest_of
from tests.unit.swarm.test_relays import bridge

HANDSHAKE = 800  # bytes that the one end sends before the link is made, and somewhat more


class Listener:
    """Between the two connections of a splice: keeps a copy, and may change a byte."""

    def __init__(self, bend_at: int | None = None) -> None:
        self.heard = bytearray()
        self.bend_at = bend_at
        self.bent = 0

    async def splice(
        self,
        one: socket.socket,
        other: socket.socket,
        *,
        budgets: Sequence[Budget],
        carried: Carried,
        idle: float,
        total: float,
    ) -> None:
        near, one_far = socket.socketpair()
        other_far, far = socket.socketpair()
        for sock in (near, one_far, other_far, far):
            sock.setblocking(False)
        go = partial(splice, budgets=budgets, carried=carried, idle=idle, total=total)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(go, one, near))
            nursery.start_soon(partial(go, far, other))
            ends = [trio.socket.from_stdlib_socket(sock) for sock in (one_far, other_far)]
            try:
                async with trio.open_nursery() as both:
                    both.start_soon(self._carry, ends[0], ends[1])
                    both.start_soon(self._carry, ends[1], ends[0])
            finally:
                for end in ends:
                    end.close()

    async def _carry(self, source: trio.socket.SocketType, sink: trio.socket.SocketType) -> None:
        passed = 0
        try:
            while part := bytearray(await source.recv(65536)):
                self.heard += part
                at = None if self.bend_at is None else self.bend_at - passed
                if at is not None and 0 <= at < len(part):
                    part[at] ^= 1
                    self.bent += 1
                passed += len(part)
                while part:
                    del part[: await sink.send(part)]
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meetings, "MEET_SECONDS", 0.0)


async def test_a_relay_reads_neither_content_nor_who_fetches_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blob(40)
    listener = Listener()
    monkeypatch.setattr(relay_module, "splice", listener.splice)
    async with bridge(tmp_path) as there:
        share = there.seed.serve(data)
        result = await there.leecher.download(data).run(there.leecher.links)
        assert result.path.read_bytes() == data
        assert len(listener.heard) > len(data)
        known = [share.file_id, manifest_of(data).header_bytes]
        known += [data[at : at + 16] for at in range(0, len(data) - 16, 4096)]
        known += [peer.swarm.endpoint.identity.node_id for peer in (there.seed, there.leecher)]
        assert not any(secret in listener.heard for secret in known)


@pytest.mark.parametrize("at", [5, 100, HANDSHAKE])
async def test_a_byte_that_a_relay_changes_ends_the_link(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blob(40)
    listener = Listener(bend_at=at)
    monkeypatch.setattr(relay_module, "splice", listener.splice)
    async with bridge(tmp_path) as there:
        share = there.seed.serve(data)
        download = there.leecher.download(data, terms=Terms(timeout=2.0))
        with pytest.raises(FuryMeshError):
            await download.run(there.leecher.links)
        assert listener.bent
        assert not (tmp_path / "leecher" / "out.bin").exists()
        assert not share.members


async def test_chunks_that_a_relay_changes_are_not_taken_and_not_held_against_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blob(40)
    listener = Listener(bend_at=len(data) // 3)
    monkeypatch.setattr(relay_module, "splice", listener.splice)
    async with bridge(tmp_path) as there:
        there.seed.serve(data)
        # Each link brings something before it ends, so the whole comes in the end.
        result = await there.leecher.download(data).run(there.leecher.links)
        assert result.path.read_bytes() == data
        assert listener.bent
        assert not there.leecher.swarm.admission.bans.nodes
