"""A node behind a router that is asked to let others in: they come, and directly."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from furymesh.core.link import Tracker
from tests.apart import ALONE
from tests.e2e.mesh import Event, Mesh, Process, finished, same, write_blob
from tests.netns import miniupnpd
from tests.netns.lab import Host, Lab, LabError, Shape, _run, mbit
from tests.netns.nat import ROUTER, Guest, Nat, behind
from tests.waiting import block_until

NETWORK = "1.2.3"  # reserved by APNIC: public, and nobody's
LINE = Shape(mbit(100), mbit(100))
PORT = 7700
SIZE = 5_000_000
PATIENCE = 30.0
STOP_SECONDS = 8.0  # for a node to end, whatever its router does
MUTE_IGD = Path(__file__).with_name("mute_igd.py")
MAPPED_SECONDS = 15.0  # UPnP routers may take three to answer a search
NEIGHBOUR = "192.168.7.3"
CONFIG = f"discovery: {json.dumps({**ALONE, 'port_mapping': True})}\n"
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
ASK = (
    "import socket, sys, time\n"
    "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
    "    sock.settimeout(1)\n"
    "    sock.bind((sys.argv[1], 0))\n"
    "    sock.connect((sys.argv[2], 5351))\n"
    "    for _ in range(10):\n"
    "        try:\n"
    "            sock.send(bytes.fromhex(sys.argv[3]))\n"
    "            answer = sock.recv(100)\n"
    "            break\n"
    "        except OSError:\n"
    "            time.sleep(0.1)\n"
    "    assert int.from_bytes(answer[10:12]) == int(sys.argv[4]), answer\n"
)
LISTEN = (
    "import signal, socket\n"
    f"with socket.create_server(('', {PORT})): print('{{\"event\": \"up\"}}', flush=True)"
    " or signal.pause()\n"
)

pytestmark = pytest.mark.netns


@dataclass
class Place:
    """Somebody outside, and a guest behind a router."""

    mesh: Mesh
    outside: Host
    guest: Guest

    @property
    def public_address(self) -> str:
        return f"{self.guest.router.address}:{PORT}"

    def node(self) -> Process:
        listen = ("--listen", f"0.0.0.0:{PORT}")
        node = self.mesh.start("seed", "node", "--json", *listen, on=self.guest)
        node.expect("listening")
        return node

    @contextmanager
    def script(self, where: Host | Guest, *arguments: str) -> Iterator[Process]:
        argv = where.command([sys.executable, *arguments])
        log = self.mesh.root / "script.err"
        process = Process(argv, log, self.mesh.root, dict(os.environ))
        try:
            yield process
        finally:
            process.clean_up()

    def let_in(self) -> bool:
        """Whether somebody outside gets through to the guest's port."""
        host, _, port = self.public_address.partition(":")
        knock = self.outside.command([sys.executable, "-c", KNOCK, host, port])
        return subprocess.run(knock, capture_output=True, check=False).returncode == 0

    def doctor(self) -> Event:
        done = self.mesh.start("seed", "doctor", "--json", on=self.guest).done()
        return next(finding for finding in done.events if finding["check"] == "router")


@pytest.fixture
def place(mesh: Mesh, lab_needed: None) -> Iterator[Place]:
    with Lab([LINE] * 2, network=NETWORK) as lab:
        outside, router = lab.hosts
        try:
            guest = behind(router, Nat.PORT_RESTRICTED)
        except LabError as error:
            pytest.skip(f"no NAT here: {error}")
        mesh.home("seed", discovery=CONFIG)
        with ExitStack() as stack:
            stack.callback(mesh.close)
            yield Place(mesh, outside, guest)


@pytest.mark.parametrize("upnp", [True, False], ids=["UPnP", "PCP"])
def test_a_node_behind_a_router_is_reached_directly_until_it_ends(
    place: Place, upnp: bool, tmp_path: Path
) -> None:
    if (reason := miniupnpd.why_not()) is not None:
        pytest.skip(reason)
    miniupnpd.start(place.guest, tmp_path, upnp=upnp, natpmp=not upnp)
    mesh = place.mesh
    source = write_blob(mesh.root / "content.bin", SIZE, seed=23)
    link = mesh.share("seed", source).link.text
    node = place.node()
    node.expect_err(f"this node is reached at {place.public_address}", MAPPED_SECONDS)
    assert place.public_address in mesh.call("seed", "id", "--json").last["addresses"]
    get = ("get", link, "--json", "--peer", place.public_address)
    complete = finished(mesh.start("user", *get, on=place.outside), PATIENCE)
    assert same(Path(complete["path"]), source)
    assert [peer["address"] for peer in complete["peers"]] == [place.public_address]
    found = place.doctor()
    assert found["verdict"] == "ok", found
    assert place.guest.router.address in found["text"]
    assert node.stop().code == 0
    with place.script(place.guest, "-c", LISTEN) as other:
        other.expect("up")
        block_until(lambda: not place.let_in())


def taken_by_neighbour(place: Place) -> None:
    """Have the router forward PORT to somebody else: NAT-PMP, RFC 6886, section 3.3."""
    _run("ip", "-n", place.guest.namespace, "addr", "add", f"{NEIGHBOUR}/24", "dev", "eth0")
    asked = struct.pack(">BBHHHI", 0, 2, 0, PORT, PORT, 3600).hex()
    _run(*place.guest.command([sys.executable, "-c", ASK, NEIGHBOUR, ROUTER, asked, str(PORT)]))


def test_a_router_that_grants_another_port_has_that_one_announced(
    place: Place, tmp_path: Path
) -> None:
    if (reason := miniupnpd.why_not()) is not None:
        pytest.skip(reason)
    miniupnpd.start(place.guest, tmp_path, upnp=False, natpmp=True)
    taken_by_neighbour(place)
    mesh, outside = place.mesh, place.outside
    source = write_blob(mesh.root / "content.bin", SIZE, seed=23)
    with place.script(outside, "-m", "tests.tracker_server", outside.address) as tracker:
        url = f"http://{outside.address}:{tracker.expect('up')['port']}/announce"
        link = mesh.share("seed", source, trackers=[Tracker.parse(url)]).link.text
        node = place.node()
        node.expect_err("this node is reached at ", MAPPED_SECONDS)
        mapped = node.err.partition("this node is reached at ")[2].split()[0]
        host, _, port = mapped.partition(":")
        assert (host, port) != (place.guest.router.address, str(PORT))
        assert mapped in mesh.run("seed", "id", "--json").last["addresses"]
        complete = finished(mesh.start("user", "get", link, "--json", on=outside), PATIENCE)
        # Earlier its own port was told, and from that port it may have dialled.
        tracker.expect("announced", where=lambda event: event["place"] == mapped)
    assert same(Path(complete["path"]), source)
    assert [peer["found"] for peer in complete["peers"]] == ["tracker"]


@pytest.mark.parametrize(
    "external", ["127.0.0.9", pytest.param(NETWORK + ".2", marks=pytest.mark.slow)]
)
def test_a_router_that_lies_and_goes_mute_is_not_believed_and_holds_up_nobody(
    place: Place, external: str
) -> None:
    router = place.guest.router
    with place.script(router, str(MUTE_IGD), ROUTER, external) as igd:
        igd.expect("ready")
        node = place.node()
        igd.expect("AddPortMapping", timeout=MAPPED_SECONDS)
        node.expect_err("the router ", MAPPED_SECONDS)
        named = f"{external}:{PORT}" in place.mesh.call("seed", "id", "--json").out
        assert named is external.startswith(NETWORK)
        begun = time.monotonic()
        assert node.stop().code == 0
        assert time.monotonic() - begun < STOP_SECONDS


@pytest.mark.slow
def test_a_router_that_lets_nobody_in_is_named_with_what_to_do(place: Place) -> None:
    found = place.doctor()
    assert found["verdict"] == "note"
    assert "forward TCP port 7654 there by hand" in found["advice"]
