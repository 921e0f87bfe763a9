"""The laboratory itself: rates are true, cuts cut, nothing is left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.conftest import MakeLab
from tests.netns.lab import Host, Lab, LabError, Shape, mbit, why_not

FAST = Shape(mbit(100), mbit(100))
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 0.5)"
LISTEN = "import socket; s = socket.create_server(('', 7000)); print('up', flush=True); s.accept()"
REFUSED = """
import contextlib, socket, sys, time
start = time.monotonic()
with contextlib.suppress(ConnectionRefusedError):
    socket.create_connection((sys.argv[1], 9), 5)
print(time.monotonic() - start)
"""
DATAGRAMS = 4000  # a hundred bytes each
SEND = f"""
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for number in range({DATAGRAMS}):
        sender.sendto(bytes(100), (sys.argv[1], 7000))
        if not number % 50:
            time.sleep(0.01)  # a pace at which no queue overflows
"""
COUNT = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
    receiver.bind(("", 7000))
    print("up", flush=True)
    receiver.recv(200)
    receiver.settimeout(1)
    count = 1
    try:
        while receiver.recv(200):
            count += 1
    except TimeoutError:
        print(count, flush=True)
"""

pytestmark = pytest.mark.netns


def can_connect(source: Host, sink: Host) -> bool:
    listener = sink.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE)
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"up\n"
    tried = subprocess.run(
        source.command([sys.executable, "-c", CONNECT, sink.address]),
        capture_output=True,
        check=False,
        timeout=20,
    )
    listener.kill()
    listener.wait(20)
    return tried.returncode == 0


def test_goodput_is_the_shaped_rate(make_lab: MakeLab) -> None:
    lab = make_lab([FAST, FAST])
    first, second = lab.hosts
    before = second.received()
    goodput = lab.goodput(first, second)
    assert goodput * 8 == pytest.approx(mbit(100), rel=0.05)
    # Four seconds at that rate passed the counters, told apart from their headers.
    assert (second.received() - before).payload == pytest.approx(goodput * 4, rel=0.05)


def test_the_slower_of_uplink_and_downlink_counts(make_lab: MakeLab) -> None:
    lab = make_lab([Shape(mbit(20), mbit(100)), Shape(mbit(100), mbit(40))])
    first, second = lab.hosts
    assert lab.goodput(first, second, 2) * 8 == pytest.approx(mbit(20), rel=0.08)
    assert lab.goodput(second, first, 2) * 8 == pytest.approx(mbit(100), rel=0.08)


def test_cut_and_heal(make_lab: MakeLab) -> None:
    first, second = make_lab([FAST, FAST]).hosts
    assert can_connect(first, second)
    second.cut()
    assert not can_connect(first, second)
    second.heal()
    assert can_connect(first, second)


@pytest.mark.parametrize("congestion", ["cubic", "reno"])  # every Linux has these
@pytest.mark.usefixtures("lab_needed")
def test_congestion_control_is_pinned(congestion: str) -> None:
    with Lab([FAST], congestion) as lab:
        (host,) = lab.hosts
        listed = subprocess.run(
            host.command(["ip", "route"]), capture_output=True, text=True, check=True, timeout=20
        )
    assert f"congctl {congestion}" in listed.stdout


def said(host: Host, script: str, *words: str) -> float:
    """The number that a script prints on a host."""
    argv = [sys.executable, "-c", script, *words]
    done = subprocess.run(host.command(argv), capture_output=True, check=True, timeout=20)
    return float(done.stdout)


def test_a_far_host_is_a_round_trip_away_and_its_link_as_wide(make_lab: MakeLab) -> None:
    near, far = make_lab([FAST, Shape(mbit(100), mbit(100), 0.05)]).hosts
    # Its first segment is answered by a reset, and before that its address is asked for.
    assert 0.2 <= said(near, REFUSED, far.address) < 0.4
    assert 0.1 <= said(near, REFUSED, far.address) < 0.2
    assert near.lab.goodput(near, far, warm_up=3) * 8 == pytest.approx(mbit(100), rel=0.1)


def test_frames_are_lost_at_the_rate_asked_for(make_lab: MakeLab) -> None:
    source, sink = make_lab([FAST, FAST]).hosts
    sink.lose(0.1)
    counter = sink.popen([sys.executable, "-c", COUNT], stdout=subprocess.PIPE)
    assert counter.stdout is not None
    assert counter.stdout.readline() == b"up\n"
    subprocess.run(source.command([sys.executable, "-c", SEND, sink.address]), check=True)
    assert float(counter.stdout.readline()) == pytest.approx(0.9 * DATAGRAMS, rel=0.05)


@pytest.mark.usefixtures("lab_needed")
def test_labs_overlap_and_leave_nothing_behind() -> None:
    with Lab([FAST, FAST]) as one, Lab([FAST]) as other:
        names = [host.namespace for lab in (one, other) for host in lab.hosts]
        assert len({*names, one.bridge, other.bridge}) == 5
        sleeper = one.hosts[0].popen(["sleep", "60"])
    assert sleeper.poll() is not None
    assert not [name for name in names if Path("/run/netns", name).exists()]


@pytest.mark.usefixtures("lab_needed")
def test_a_failed_build_cleans_up() -> None:
    lab = Lab([FAST, Shape(up=-1, down=1)])
    with pytest.raises(LabError, match="tbf"):
        lab.__enter__()
    assert not Path("/run/netns", lab.bridge).exists()


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert why_not() == "the network lab needs ip, tc, bridge, iperf3"


def test_a_lab_without_hosts_is_refused() -> None:
    with pytest.raises(LabError, match="1 to"):
        Lab([])


def test_hosts_do_not_see_the_machine(make_lab: MakeLab) -> None:
    (host,) = make_lab([FAST]).hosts
    with socket.create_server(("127.0.0.1", 0)) as outside:
        probe = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)"
        tried = subprocess.run(
            host.command([sys.executable, "-c", probe, str(outside.getsockname()[1])]),
            capture_output=True,
            check=False,
            timeout=20,
        )
    assert b"ConnectionRefusedError" in tried.stderr
