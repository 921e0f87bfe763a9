"""A laboratory of shaped hosts in network namespaces of its own.

Each host lives in its own namespace, joined by a veth pair to a bridge in one
further namespace; a host that is far away is joined by a long road instead (road.py).
A token bucket on the host's end shapes its uplink, another on the bridge port its
downlink. Nothing outside these namespaces is changed: the congestion control is
pinned on the hosts' routes, because the sysctl of a namespace only takes what the
machine as a whole allows.

Always true: whatever a `Lab` made (namespaces, processes started with
`Host.popen`) is gone when its `with` block is left, however it is left.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

COMMAND_TIMEOUT = 20.0  # seconds; ip and tc answer in milliseconds, a loaded machine is slow
BURST = 80_000  # bytes; one 64 KiB segmentation-offload packet with its headers must fit
QUEUE = "50ms"  # of the link's rate: a home router's buffer, not a bufferbloat test
WIRE_HEADERS = 66  # bytes an Ethernet frame spends on Ethernet, IPv4 and TCP with timestamps
NETWORK = "10.77.0"  # private to the laboratory: namespaces of two labs never meet
MAX_HOSTS = 200  # one /24
ROAD = Path(__file__).with_name("road.py")
TOOLS = ("ip", "tc", "bridge", "iperf3")


class LabError(Exception):
    """A command of the laboratory failed; the text names it and its output."""


def why_not() -> str | None:
    """Say why a lab cannot be built here, or None when it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"the network lab needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "the network lab needs root to make namespaces"
    return None


def mbit(rate: float) -> int:
    """Megabits a second as bits a second."""
    return int(rate * 1_000_000)


@dataclass(frozen=True, slots=True)
class Shape:
    """One host's link: rates in bits a second, and seconds that each way takes."""

    up: int
    down: int
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a shaper let through so far: bytes on the wire, and frames."""

    wire_bytes: int
    frames: int

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.wire_bytes - earlier.wire_bytes, self.frames - earlier.frames)

    @property
    def payload(self) -> int:
        """Bytes carried above TCP, retransmissions included."""
        return max(0, self.wire_bytes - self.frames * WIRE_HEADERS)


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(argv)}: no answer in {late.timeout:.0f} s") from late
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Host:
    """One host of a lab: a namespace with the single interface eth0."""

    lab: Lab
    number: int
    shape: Shape

    @property
    def namespace(self) -> str:
        return f"{self.lab.name}-h{self.number}"

    @property
    def port(self) -> str:
        """Name of this host's port on the bridge."""
        return f"p{self.number}"

    @property
    def address(self) -> str:
        return f"{self.lab.network}.{self.number + 1}"

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` run on this host; the process keeps its pid (ip execs it)."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process here in a session of its own; the lab kills it at the end."""
        process: subprocess.Popen[bytes] = subprocess.Popen(
            self.command(argv), start_new_session=True, **options
        )
        self.lab.adopt(process)
        return process

    def sent(self) -> Traffic:
        """What left this host through its uplink shaper."""
        return _traffic(self.namespace, "eth0")

    def received(self) -> Traffic:
        """What reached this host through its downlink shaper."""
        return _traffic(self.lab.bridge, self.port)

    def cut(self) -> None:
        """Drop everything from and to this host, silently: its carrier stays up."""
        self._bridge_state("0")

    def heal(self) -> None:
        """Undo `cut`."""
        self._bridge_state("3")

    def lose(self, share: float) -> None:
        """From now on drop this share (0 to 1) of the frames that reach the host, at random.

        Call it before connections are made. Raises LabError where the kernel has no such rule.
        """
        for host in self.lab.hosts:  # one segment a frame: forty would be lost as one
            _run("ip", "-n", host.namespace, "link", "set", "dev", "eth0", "gso_max_segs", "1")
        chance = ("-m", "statistic", "--mode", "random", "--probability", f"{share:.6f}")
        self._input("-A", *chance, "-j", "DROP")

    def shut_out(self, other: Host) -> None:
        """Drop everything from another host, silently. Raises LabError as `lose` does."""
        self._input("-I", "-s", other.address, "-j", "DROP")

    def let_in(self, other: Host) -> None:
        """Undo `shut_out`."""
        self._input("-D", "-s", other.address, "-j", "DROP")

    def lose_nothing(self) -> None:
        """Undo `lose` and every `shut_out`."""
        self._input("-F")

    def _input(self, action: str, *rule: str) -> None:
        _run(*self.command(["iptables", "-w", action, "INPUT", *rule]))

    def _bridge_state(self, state: str) -> None:
        _run("bridge", "-n", self.lab.bridge, "link", "set", "dev", self.port, "state", state)


def _traffic(namespace: str, device: str) -> Traffic:
    listed = json.loads(_run("tc", "-n", namespace, "-s", "-j", "qdisc", "show", "dev", device))
    root = next(entry for entry in listed if entry.get("root"))
    return Traffic(int(root["bytes"]), int(root["packets"]))


class Lab:
    """Hosts on one bridge, one per shape given. Use as a context manager.

    `congestion` is the congestion control of everything they send, `network` the first
    three numbers of their addresses. Raises LabError when a command fails; `why_not()`
    tells beforehand whether labs can be built at all.
    """

    def __init__(
        self, shapes: Sequence[Shape], congestion: str = "cubic", network: str = NETWORK
    ) -> None:
        if not 1 <= len(shapes) <= MAX_HOSTS:
            raise LabError(f"a lab has 1 to {MAX_HOSTS} hosts, not {len(shapes)}")
        self.name = f"fmlab-{os.getpid()}-{secrets.token_hex(3)}"
        self.bridge = f"{self.name}-br"
        self.hosts = tuple(Host(self, number, shape) for number, shape in enumerate(shapes))
        self.network = network
        self._congestion = congestion
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        try:
            _room_for_neighbours(len(self.hosts))
            self.namespace(self.bridge)
            bridge = ("type", "bridge", "forward_delay", "0", "stp_state", "0")
            _run("ip", "-n", self.bridge, "link", "add", "br0", *bridge)
            _run("ip", "-n", self.bridge, "link", "set", "br0", "up")
            for host in self.hosts:
                self._attach(host)
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Kill `process` and its session when the lab is left."""
        self._cleanup.callback(_kill, process)

    def goodput(self, source: Host, sink: Host, seconds: int = 3, *, warm_up: int = 1) -> float:
        """Bytes a second that one TCP stream delivers from `source` to `sink`.

        Counted for `seconds` seconds after the first `warm_up`.
        """
        server = sink.popen(
            ["iperf3", "-s", "-1", "--forceflush", "-B", sink.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert server.stdout is not None
            _await_line(server.stdout, b"listening")
            client = ["iperf3", "-c", sink.address, "-t", str(seconds), "-O", str(warm_up), "-J"]
            limit = ["timeout", str(seconds + warm_up + 15)]
            done = subprocess.run(
                source.command([*limit, *client]), capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise LabError(f"iperf3 from {source.address} to {sink.address}: {done.stdout}")
            received = json.loads(done.stdout)["end"]["sum_received"]
            return float(received["bits_per_second"]) / 8
        finally:
            _kill(server)

    def namespace(self, name: str) -> None:
        """Make a namespace that goes with the lab."""
        _run("ip", "netns", "add", name)
        self._cleanup.callback(_delete_namespace, name)

    def _attach(self, host: Host) -> None:
        inside = host.namespace
        self.namespace(inside)
        for setting in (
            "net/ipv6/conf/all/disable_ipv6=1",  # no neighbour discovery in the counters
            "net/ipv4/tcp_no_metrics_save=1",  # a run must not teach the next one
        ):
            key, value = setting.split("=")
            _run(*host.command(["sh", "-c", f"echo {value} > /proc/sys/{key}"]))
        if host.shape.delay:
            self._build_road(host)
        else:
            pair = ("type", "veth", "peer", "name", "eth0", "netns", inside)
            _run("ip", "-n", self.bridge, "link", "add", host.port, *pair)
        _run("ip", "-n", self.bridge, "link", "set", host.port, "master", "br0", "up")
        _run("ip", "-n", inside, "link", "set", "lo", "up")
        _run("ip", "-n", inside, "link", "set", "eth0", "up")
        own = f"{host.address}/24"
        _run("ip", "-n", inside, "addr", "add", own, "dev", "eth0", "noprefixroute")
        everyone = f"{self.network}.0/24"
        _run(
            "ip", "-n", inside, "route", "add", everyone, "dev", "eth0", "congctl", self._congestion
        )
        _shape(inside, "eth0", host.shape.up)
        _shape(self.bridge, host.port, host.shape.down)

    def _build_road(self, host: Host) -> None:
        """Join a host to its bridge port by two TAP devices and a process between them."""
        road = [sys.executable, str(ROAD), "--delay", str(host.shape.delay)]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            road, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.adopt(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise LabError(f"the road to {host.address} could not be built: no TAP devices")
        near, far = json.loads(line)
        _run("ip", "link", "set", "dev", near, "netns", host.namespace, "name", "eth0")
        _run("ip", "link", "set", "dev", far, "netns", self.bridge, "name", host.port)


def _room_for_neighbours(hosts: int) -> None:
    """Let every host know every other: all namespaces share one table in the kernel.

    A full table loses packets to hosts that are there. The limits are only raised.
    """
    for name, most in (("gc_thresh2", 2 * hosts * hosts), ("gc_thresh3", 4 * hosts * hosts)):
        limit = Path("/proc/sys/net/ipv4/neigh/default") / name
        if int(limit.read_text()) < most:
            limit.write_text(f"{most}\n")


def _shape(namespace: str, device: str, rate: int) -> None:
    bucket = ("tbf", "rate", f"{rate}bit", "burst", str(BURST), "latency", QUEUE)
    _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *bucket)


def _delete_namespace(name: str) -> None:
    try:
        _run("ip", "netns", "del", name)
    except LabError:
        if Path("/run/netns", name).exists():
            raise


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(COMMAND_TIMEOUT)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _await_line(stream: IO[bytes], word: bytes) -> None:
    deadline = time.monotonic() + COMMAND_TIMEOUT
    while line := stream.readline():
        if word in line:
            return
        if time.monotonic() > deadline:
            break
    raise LabError(f"the server never said {word.decode()!r}")
