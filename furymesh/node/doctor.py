"""What would keep a node from working well here, and what to do about it.

Each check tries for real what a node would do and tells one finding; nothing that
it makes stays.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.errors import FuryMeshError, HandshakeError
from furymesh.core.ids import ID_SIZE, INSTANCE_SIZE, DiscoveryTag, NodeId, node_id_text
from furymesh.core.link import Address, Tracker
from furymesh.core.paths import shown
from furymesh.core.units import format_size, parse_size
from furymesh.discovery.dht import DhtSettings, open_dht
from furymesh.discovery.port_mapper import address_behind_router
from furymesh.discovery.source import Interests
from furymesh.discovery.tracker import open_trackers
from furymesh.net.addresses import is_loopback, unpacked_ip
from furymesh.net.connect import Endpoint, listen
from furymesh.net.identity import Identity, stored_node_id
from furymesh.net.interfaces import ANY, bound_hosts, reachable_hosts
from furymesh.net.multicast import PORT as LAN_PORT
from furymesh.net.multicast import Multicast, Sender
from furymesh.net.relay import RELAY, RENDEZVOUS
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.node.dht import installed
from furymesh.node.port_mapping import forwardable, try_mapping
from furymesh.node.secret_file import read_psk
from furymesh.storage.files import atomic_write, free_space
from furymesh.wire.datagrams import Discover, Service, encode_discover

NETWORK_SECONDS = 6.0  # for others to answer: a bootstrap node of the DHT takes up to 5
MULTICAST_SECONDS = 1.0  # for our own question to come back
INSTALL = "pip install 'furymesh[dht]'"
# No machine on which this version runs has an earlier date.
RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
AHEAD_SECONDS = 3600.0  # by which a file may be newer than now: other machines write files too


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # works, or is off; worth knowing
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so, and what to do about it where there is something to do."""

    what: str
    verdict: Verdict
    text: str
    advice: str = ""


Check = Callable[[Config], Awaitable[Finding]]


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Run every check; findings come in a fixed order, those of the network last."""
    for local in (_directory, _identity, _clock):
        yield await trio.to_thread.run_sync(local, config)
    for finding in await trio.to_thread.run_sync(lambda: list(_disks(config))):
        yield finding
    yield await _port(config)
    checks: list[Check] = [_lan, _dht, _router]
    checks += [_tracker(Tracker.parse(url)) for url in config.discovery.trackers]
    checks += [_relay(Address.parse(text)) for text in config.discovery.relays]
    findings: dict[int, Finding] = {}

    async def run(number: int, check: Check) -> None:
        findings[number] = await check(config)

    async with trio.open_nursery() as nursery:
        for number, check in enumerate(checks):
            nursery.start_soon(run, number, check)
    for number in range(len(checks)):
        yield findings[number]


# --- this machine -----------------------------------------------------------------


def _directory(config: Config) -> Finding:
    what, path = "data directory", config.data_dir
    probe = path / "doctor.probe"
    try:
        if not path.exists():
            return Finding(what, Verdict.NOTE, f"{shown(str(path))} will be made on first use")
        atomic_write(probe, b"")
        probe.unlink()
    except (FuryMeshError, OSError) as error:
        return Finding(what, Verdict.PROBLEM, str(error), "name another with --data-dir")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding(
            what,
            Verdict.PROBLEM,
            f"other users may look into {shown(str(path))}",
            f"chmod 700 {shown(str(path))}",
        )
    return Finding(what, Verdict.OK, f"{shown(str(path))}, private")


def _identity(config: Config) -> Finding:
    try:
        node_id = stored_node_id(config.data_dir)
    except FuryMeshError as error:
        return Finding("identity", Verdict.PROBLEM, str(error))
    if node_id is None:
        return Finding("identity", Verdict.NOTE, "will be made on first use")
    return Finding("identity", Verdict.OK, node_id_text(node_id))


def _clock(config: Config) -> Finding:
    now = time.time()
    advice = "set the clock, best by a time service"
    if now < RELEASED.timestamp():
        text = f"it is {datetime.fromtimestamp(now, UTC):%Y-%m-%d}, says the clock: it is late"
        return Finding("clock", Verdict.PROBLEM, text, advice)
    newest = max(map(_changed_at, _files(config.data_dir)), default=0.0)
    if newest > now + AHEAD_SECONDS:
        text = f"files in the data directory are of {datetime.fromtimestamp(newest, UTC):%Y-%m-%d}"
        return Finding("clock", Verdict.NOTE, f"{text}, after now", advice)
    return Finding("clock", Verdict.OK, f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC")


def _files(directory: Path) -> Iterator[Path]:
    return (Path(root, name) for root, _, names in os.walk(directory) for name in names)


def _changed_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _disks(config: Config) -> Iterator[Finding]:
    reserve = parse_size(config.storage.reserve)
    places = {
        "downloads": config.storage.download_dir,
        "resume data": config.transfer.resume_dir,
    }
    for what, named in places.items():
        try:
            path = named.absolute()
            there = next(place for place in (path, *path.parents) if place.exists())
            free = free_space(there)
        except (FuryMeshError, OSError) as error:
            yield Finding(what, Verdict.PROBLEM, str(error))
            continue
        text = f"{shown(os.path.abspath(path))}, {format_size(free)} free"
        if not os.access(there, os.W_OK | os.X_OK):
            advice = f"allow it, or name another place ({_key_of(what)})"
            yield Finding(
                what, Verdict.PROBLEM, f"nothing can be written to {shown(str(path))}", advice
            )
        elif free < reserve:
            advice = f"free some space: {format_size(reserve)} are kept (storage.reserve)"
            yield Finding(what, Verdict.PROBLEM, text, advice)
        else:
            yield Finding(what, Verdict.OK, text)


def _key_of(what: str) -> str:
    return "storage.download_dir" if what == "downloads" else "transfer.resume_dir"


async def _port(config: Config) -> Finding:
    try:
        status = await face.status(config)
    except FuryMeshError as error:
        return Finding("port", Verdict.PROBLEM, f"a node runs, but: {error}")
    if status is not None:
        listed = status.get("addresses")
        addresses = ", ".join(map(str, listed)) if isinstance(listed, list) else ""
        return Finding("port", Verdict.OK, f"the node that runs listens on {shown(addresses)}")
    try:
        listeners = listen(Address.parse(config.node.listen, any_port=True))
    except FuryMeshError as error:
        return Finding("port", Verdict.PROBLEM, str(error), "choose another: node.listen")
    for sock in listeners:
        sock.close()
    return Finding("port", Verdict.OK, f"{config.node.listen} is free; no node runs")


# --- the network ------------------------------------------------------------------


async def _lan(config: Config) -> Finding:
    what = "local network"
    if not config.discovery.lan.enabled:
        return Finding(what, Verdict.NOTE, "off: discovery.lan.enabled")
    question = encode_discover(
        Discover(
            Service.SWARM,
            NodeId(os.urandom(ID_SIZE)),
            os.urandom(INSTANCE_SIZE),
            (DiscoveryTag(os.urandom(ID_SIZE)),),
        )
    )
    back, refusal = trio.Event(), ""

    def heard(raw: memoryview, sender: Sender) -> None:
        if raw == question and not is_loopback(sender[0]):
            back.set()

    try:
        with Multicast(reachable_hosts(ANY)[:1]) as segments:
            if all(is_loopback(interface.ipv4) for interface in segments.interfaces):
                return Finding(what, Verdict.NOTE, "there is none: no interface but loopback")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(segments.listen, heard, heard)
                refusal = segments.ask(question)
                with trio.move_on_after(MULTICAST_SECONDS):
                    await back.wait()
                nursery.cancel_scope.cancel()
    except (FuryMeshError, OSError) as error:
        return Finding(what, Verdict.PROBLEM, str(error))
    if back.is_set():
        return Finding(what, Verdict.OK, f"multicast works; others need UDP port {LAN_PORT} open")
    advice = f"let UDP port {LAN_PORT} through the firewall, or allow multicast on an interface"
    text = refusal or "a question by multicast did not come back"
    return Finding(what, Verdict.PROBLEM, text, advice)


async def _dht(config: Config) -> Finding:
    dht = config.discovery.dht
    if not dht.enabled:
        return Finding("DHT", Verdict.NOTE, "off: discovery.dht.enabled")
    if not installed():
        return Finding("DHT", Verdict.NOTE, "not installed", INSTALL)
    if config.node.private:
        return Finding("DHT", Verdict.NOTE, "not used in a private swarm")
    entrances = tuple(map(Address.parse, dht.bootstrap_nodes))
    trouble = ""
    try:
        async with open_dht(DhtSettings(entrances)) as node:
            with trio.move_on_after(NETWORK_SECONDS):
                await node.joined.wait()
            if node.nodes:
                seen = ", ".join(sorted(node.external))
                text = f"joined; this machine is seen as {seen}" if seen else "joined"
                return Finding("DHT", Verdict.OK, text)
            trouble = node.trouble
    except FuryMeshError as error:
        return Finding("DHT", Verdict.PROBLEM, str(error))
    advice = "let UDP and DNS out, or name others in discovery.dht.bootstrap_nodes"
    return Finding("DHT", Verdict.PROBLEM, trouble or "none of its nodes answered", advice)


async def _router(config: Config) -> Finding:
    what, asked = "router", config.discovery.port_mapping
    address = Address.parse(config.node.listen, any_port=True)
    if asked is False:
        return Finding(what, Verdict.NOTE, "not asked to let others in: discovery.port_mapping")
    if asked is None and config.node.private:
        text = "not asked to let others in to a private swarm: discovery.port_mapping"
        return Finding(what, Verdict.NOTE, text)
    if not installed():
        return Finding(what, Verdict.NOTE, "not asked to let others in", INSTALL)
    try:
        listeners = listen(Address(address.host, 0))
        host = forwardable(bound_hosts(listeners))
        for sock in listeners:
            sock.close()
        if host is None or not address_behind_router(host):
            text = "not asked to let others in: nothing here is behind one"
            return Finding(what, Verdict.NOTE, text)
        mapping, troubles = await try_mapping(host, NETWORK_SECONDS)
    except FuryMeshError as error:
        return Finding(what, Verdict.PROBLEM, str(error))
    if mapping is not None and mapping.host:
        return Finding(what, Verdict.OK, f"it lets others in, at {mapping.host}")
    text = "it lets nobody in by itself"
    if mapping is not None:
        text = "it lets others in, but has no public address: it is behind another one"
    elif troubles:
        text += f" ({', '.join(f'{name}: {trouble}' for name, trouble in troubles.items())})"
    port = f"TCP port {address.port}" if address.port else "a fixed port (node.listen)"
    advice = f"forward {port} there by hand, or use a relay (discovery.relays)"
    return Finding(what, Verdict.NOTE, text, advice)


def _tracker(tracker: Tracker) -> Check:
    async def check(config: Config) -> Finding:
        interests = Interests(0)
        interests.add(DiscoveryTag(os.urandom(ID_SIZE)), wanted=True)
        async with open_trackers() as trackers, trio.open_nursery() as nursery:
            source = trackers.source([tracker])
            nursery.start_soon(source.run, interests, lambda sighting: None)
            with trio.move_on_after(NETWORK_SECONDS):
                await trackers.answered.wait()
            trouble = trackers.trouble(tracker) or "no answer"
            nursery.cancel_scope.cancel()
        name = f"tracker {tracker.scheme}://{tracker.address}"
        if trackers.answered.is_set():
            return Finding(name, Verdict.OK, "answers")
        return Finding(name, Verdict.PROBLEM, trouble, "see discovery.trackers")

    return check


def _relay(address: Address) -> Check:
    async def check(config: Config) -> Finding:
        what = f"relay {Address(address.host, address.port)}"
        try:
            endpoint = Endpoint(
                Identity(Ed25519PrivateKey.generate()), psk=read_psk(config.node.psk_file)
            )
            with trio.fail_after(NETWORK_SECONDS):
                link = await endpoint.dial(address, features=(RENDEZVOUS,))
        except HandshakeError as error:  # who it lets in is its business
            return Finding(what, Verdict.NOTE, f"answers, but not to strangers: {error}")
        except (FuryMeshError, trio.TooSlowError) as error:
            text = str(error) or "no answer"
            return Finding(what, Verdict.PROBLEM, text, "see discovery.relays")
        hello = link.hello
        link.close()
        if hello is None or RELAY not in hello.features:
            return Finding(what, Verdict.PROBLEM, "it is no relay", "set node.relay there")
        seen = unpacked_ip(hello.observed_ip) if hello.observed_ip else ""
        return Finding(what, Verdict.OK, f"this machine is seen as {seen}" if seen else "answers")

    return check
