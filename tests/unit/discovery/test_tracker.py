"""Announcing to a small real tracker and asking it, over HTTP and UDP."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from furymesh.core.errors import UnavailableError
from furymesh.core.ids import info_hash
from furymesh.core.link import Address, Tracker
from furymesh.discovery import announcing, tracker_http, tracker_udp
from furymesh.discovery import tracker as tracker_module
from furymesh.discovery.source import Mapping, Sighting
from furymesh.discovery.tracker import open_trackers
from furymesh.discovery.tracker_places import check_place, check_redirect
from furymesh.net import resolving
from furymesh.wire import tracker as wire
from furymesh.wire import tracker_udp as packets
from tests.bencoding import bencoded
from tests.certificates import make_certificate, server_context
from tests.proc import descriptors
from tests.tracker_server import TestTracker, http, open_tracker
from tests.unit.discovery.asking import ONE, TWO, one_source, open_source
from tests.waiting import stays, until

either = pytest.mark.parametrize("scheme", ["http", "udp"])


@either
async def test_two_nodes_meet(scheme: str) -> None:
    async with (
        open_tracker(TestTracker()) as tracker,
        open_source(tracker.url(scheme), port=7001, wanted=False) as seed,
    ):
        await until(lambda: tracker.heard)
        async with open_source(tracker.url(scheme), port=7002) as leech:
            await until(lambda: leech.sightings)
            assert Sighting(ONE, Address("127.0.0.1", 7001), teller="127.0.0.1") in leech.sightings
        assert not seed.sightings
        first, second = tracker.heard[:2]
        assert first.info_hash == second.info_hash == info_hash(ONE)
        assert (first.event, first.port, first.left, first.numwant) == ("started", 7001, 0, 0)
        assert (second.event, second.port, second.left) == ("started", 7002, 1)
        assert second.numwant == wire.MAX_PEERS
        assert first.peer_id != second.peer_id
        assert first.key != second.key


@pytest.mark.parametrize(("public", "port"), [(True, 40001), (False, 7001)])
async def test_a_public_tracker_is_told_of_the_port_that_a_router_forwards(
    public: bool, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "may_be_mapped", lambda host: public)
    async with (
        open_tracker(TestTracker()) as tracker,
        open_source(tracker.url("udp"), port=7001, wanted=False) as seed,
    ):
        await until(lambda: tracker.heard)
        seed.interests.mapping = Mapping(40001, "1.2.3.4")
        await until(lambda: len(tracker.heard) == 2)
        assert [heard.port for heard in tracker.heard] == [7001, port]


@either
@pytest.mark.parametrize("host", ["::1"])
async def test_two_nodes_meet_over_ipv6(scheme: str, host: str) -> None:
    async with (
        open_tracker(TestTracker(host)) as tracker,
        open_source(tracker.url(scheme), port=7001),
    ):
        await until(lambda: tracker.heard)
        async with open_source(tracker.url(scheme), port=7002) as leech:
            await until(lambda: leech.addresses == {"[::1]:7001", "[::1]:7002"})


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name t.example means this machine, by IPv4 and IPv6."""
    look_up = socket.getaddrinfo

    def names(host: Any, port: Any, family: int = 0, *rest: Any, **options: Any) -> Any:
        if host == "t.example":
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        return look_up(host, port, family, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", names)


@pytest.mark.usefixtures("named")
async def test_a_tracker_by_name_is_asked_over_ipv4_and_ipv6() -> None:
    async with open_tracker(TestTracker("127.0.0.1")) as four:
        six = TestTracker("::1")
        async with (
            open_tracker(six, port=four.port),
            open_source(f"http://t.example:{four.port}/announce") as node,
        ):
            await until(lambda: four.heard and six.heard)
            await until(lambda: node.addresses == {"127.0.0.1:7001", "[::1]:7001"})
            assert f"Host: t.example:{four.port}\r\n" in four.requests[0]


@pytest.mark.usefixtures("named")
async def test_a_family_that_does_not_work_is_no_trouble() -> None:
    async with (
        open_tracker(TestTracker()) as tracker,
        open_source(f"http://t.example:{tracker.port}/announce") as node,
    ):
        await until(lambda: node.sightings)
        await until(lambda: not node.source.troubles)


@either
async def test_a_share_is_started_completed_and_stopped(scheme: str) -> None:
    async with open_tracker(TestTracker()) as tracker:
        async with open_source(tracker.url(scheme)) as node:
            await until(lambda: tracker.events() == ["started"])
            node.interests.add(ONE, wanted=False)
            await until(lambda: tracker.events() == ["started", "completed"])
            node.interests.add(TWO, wanted=True)
            await until(lambda: tracker.events()[2:] == ["started"])
            node.interests.remove(ONE)
            await until(lambda: tracker.events()[3:] == ["stopped"])
            assert tracker.heard[3].info_hash == info_hash(ONE)
            assert tracker.swarms[info_hash(ONE)] == set()
        assert tracker.events()[4:] == ["stopped"]
        assert tracker.heard[4].info_hash == info_hash(TWO)
        assert not any(tracker.swarms.values())
        assert len({heard.peer_id for heard in tracker.heard}) == 1


@either
async def test_completion_is_told_even_if_all_ends_with_it(scheme: str) -> None:
    async with open_tracker(TestTracker()) as tracker:
        async with open_source(tracker.url(scheme)) as node:
            await until(lambda: node.sightings)
            node.interests.add(ONE, wanted=False)
        assert tracker.events() == ["started", "completed", "stopped"]


@either
async def test_sources_of_a_node_are_one_peer_to_a_tracker(scheme: str) -> None:
    async with open_tracker(TestTracker()) as tracker, open_trackers() as trackers:
        url = tracker.url(scheme)
        async with one_source(trackers, url, wanted=False) as first:
            await until(lambda: tracker.events() == ["started"])
            async with one_source(trackers, url) as second, one_source(trackers, url, tags=(TWO,)):
                await until(lambda: len(tracker.heard) == 3)
                await until(lambda: second.sightings)
                assert {seen.tag for seen in second.sightings} == {ONE}
                assert not first.sightings
            await until(lambda: "stopped" in tracker.events())
            assert {h.info_hash for h in tracker.heard if h.event == "stopped"} == {info_hash(TWO)}
            assert len({(heard.peer_id, heard.key) for heard in tracker.heard}) == 1
            assert tracker.swarms[info_hash(ONE)]  # the first goes on


@either
async def test_who_ends_and_begins_again_is_announced_in_the_end(scheme: str) -> None:
    async with open_tracker(TestTracker()) as tracker, open_trackers() as trackers:
        for _ in range(20):
            async with one_source(trackers, tracker.url(scheme), wanted=False):
                await until(lambda: tracker.swarms.get(info_hash(ONE)))
        async with one_source(trackers, tracker.url(scheme), port=7002, wanted=False):
            await until(lambda: tracker.heard[-1].port == 7002)  # none of those before
            await stays(lambda: tracker.events()[-1] != "stopped", 0.2)
    assert tracker.events()[-1] == "stopped"


@either
async def test_between_announces_nothing_is_open(scheme: str) -> None:
    async with open_tracker(TestTracker()) as tracker:
        before = descriptors()
        async with open_source(tracker.url(scheme)) as node:
            await until(lambda: node.sightings)
            await until(lambda: descriptors() == before)


async def test_a_mute_name_server_takes_no_thread_that_others_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolving, "RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr(announcing, "FIRST_BACKOFF", 0.05)
    asked, end = [], threading.Event()

    def mute(host: str, *rest: Any) -> Any:
        asked.append(host)
        end.wait()
        raise socket.gaierror("no name server")

    monkeypatch.setattr(socket, "getaddrinfo", mute)
    try:
        async with open_source("udp://mute.example:1", wanted=False) as node:
            await until(lambda: node.trouble == "no name server answers")
            # It is to be asked again in that time, over IPv4 and over IPv6.
            await stays(lambda: len(asked) == 2, 0.5)
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        end.set()


@either
async def test_who_cannot_be_dialled_only_looks(scheme: str) -> None:
    async with open_tracker(TestTracker()) as tracker:
        async with open_source(tracker.url(scheme), port=7001):
            await until(lambda: tracker.heard)
            async with open_source(tracker.url(scheme), port=0) as looker:
                await until(lambda: looker.addresses == {"127.0.0.1:7001"})
                assert tracker.heard[-1].port == 0
                assert tracker.heard[-1].left == 1
        assert not any(tracker.swarms.values())


@either
async def test_the_interval_is_that_of_the_tracker(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MIN_INTERVAL", 0)
    tracker = TestTracker(interval=1)
    async with open_tracker(tracker), open_source(tracker.url(scheme), wanted=False):
        await until(lambda: len(tracker.heard) == 2)
    assert tracker.events() == ["started", "", "stopped"]
    assert 1.0 <= tracker.heard[1].at - tracker.heard[0].at < 3


@either
async def test_the_end_waits_only_so_long_for_a_tracker(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "STOP_SECONDS", 0.3)
    async with open_tracker(TestTracker()) as tracker:
        async with open_source(tracker.url(scheme), wanted=False):
            await until(lambda: tracker.heard)
            await trio.testing.wait_all_tasks_blocked(0.01)
            tracker.reply = lambda target: b""
            tracker.packet_reply = lambda packet: None
            tracker.serve_http = hang  # type: ignore[method-assign]
            start = trio.current_time()
        assert 0.25 < trio.current_time() - start < 3


async def hang(stream: trio.abc.Stream, ip: str) -> None:
    await trio.sleep_forever()


@either
async def test_a_tracker_that_was_restarted_is_told_again(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MIN_INTERVAL", 0)
    monkeypatch.setattr(announcing, "FIRST_BACKOFF", 0.2)
    first = TestTracker(interval=1)
    async with open_tracker(first):
        port = first.port
    again = TestTracker(interval=1)
    url = Tracker(scheme, Address("127.0.0.1", port), "/announce")
    async with open_source(str(url), wanted=False) as node:
        await until(lambda: node.trouble)
        async with open_tracker(again, port=port):
            await until(lambda: again.swarms.get(info_hash(ONE)))
            assert again.events() == ["started"]
            await until(lambda: not node.trouble)
        await until(lambda: node.trouble)
        last = TestTracker(interval=1)
        async with open_tracker(last, port=port):
            await until(lambda: last.swarms.get(info_hash(ONE)))
            await until(lambda: not node.trouble)


async def test_a_share_reaches_only_the_trackers_of_its_interests() -> None:
    """That is how a private share is looked for at the trackers of its own link."""
    async with (
        open_tracker(TestTracker()) as everybodys,
        open_tracker(TestTracker()) as its_own,
        open_source(everybodys.url("http"), tags=(ONE,)),
        open_source(its_own.url("http"), tags=(TWO,)),
    ):
        await until(lambda: everybodys.heard and its_own.heard)
        assert {heard.info_hash for heard in everybodys.heard} == {info_hash(ONE)}
        assert {heard.info_hash for heard in its_own.heard} == {info_hash(TWO)}


async def test_every_byte_of_an_info_hash_arrives_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_tracker(TestTracker()) as tracker:
        for first in range(0, 256, 16):
            name = bytes(range(first, first + 16)) + b"%/+&"
            announce = wire.Announce(name, bytes(20), 1, 1, True, wire.Event.NONE)
            asker = tracker_http.HttpAsker(
                Tracker.parse(tracker.url("http")), trio.CapacityLimiter(1)
            )
            await asker.ask("127.0.0.1", announce)
            assert tracker.heard[-1].info_hash == name


# --- bad trackers ---------------------------------------------------------------------

ANSWER = bencoded({b"interval": 60, b"peers": b""})


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        (b"no HTTP at all\r\n\r\n", "it does not speak HTTP"),
        (b"", "it does not speak HTTP"),
        (http(b"<html>hello</html>"), "bencode is cut short or malformed"),
        (http(b"d" * 60_000), "bencode is cut short or malformed"),
        (http(b"0" * 70_000), "more than 65536 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"2710\r\n%b\r\n" % bytes(10_000) * 9,
            "more than 65536 bytes",
        ),
        (http(ANSWER, headers="X: " + "y" * 200_000 + "\r\n"), "it does not speak HTTP"),
        (http(ANSWER, headers="Content-Encoding: gzip\r\n"), "compresses"),
        (http(b"", "503 Busy"), "HTTP status 503"),
        (http(b"", "302 Found"), "HTTP status 302"),
        (http(b"", "302 Found", "Location: udp://127.0.0.1:1/\r\n"), "from http to udp"),
        (http(b"", "302 Found", "Location: file:///etc/passwd\r\n"), "no tracker"),
        (http(b"", "302 Found", "Location: http://[::1/\r\n"), "no tracker"),
        (http(b"", "302 Found", "Location: http://169.254.1.1/announce\r\n"), "private address"),
        (http(b"", "302 Found", "Location: http://0.0.0.0/announce\r\n"), "no usable address"),
        (http(b"", "302 Found", "Location: /announce\r\n"), "again and again"),
        (http(bencoded({b"failure reason": b"g\no"})), "it refuses: g\\no"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_http_tracker_is_left_alone(reply: bytes, trouble: str) -> None:
    async with open_tracker(TestTracker()) as tracker:
        tracker.reply = lambda target: reply
        async with open_source(tracker.url("http")) as node:
            await until(lambda: node.trouble)
            assert trouble in node.trouble
            await trio.testing.wait_all_tasks_blocked(0.01)
            asked = tracker_http.MAX_REDIRECTS + 1 if "again" in trouble else 1
            assert len(tracker.requests) == asked
            assert not node.sightings


async def test_a_slow_http_tracker_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_http, "HTTP_SECONDS", 0.3)

    async def trickle(stream: trio.abc.Stream, ip: str) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"1")
            await trio.sleep(0.02)

    async with open_tracker(TestTracker()) as tracker:
        tracker.serve_http = trickle  # type: ignore[method-assign]
        async with open_source(tracker.url("http")) as node:
            await until(lambda: node.trouble == "no answer within 0.3 s")


async def test_a_redirect_within_reach_is_followed() -> None:
    async with open_tracker(TestTracker()) as there, open_tracker(TestTracker()) as tracker:

        def redirect(target: str) -> bytes:
            return http(b"", "307 There", f"Location: {there.url('http')}{target[9:]}\r\n")

        tracker.reply = redirect
        async with open_source(tracker.url("http")):
            await until(lambda: there.heard)
        assert there.events() == ["started", "stopped"]


@pytest.mark.parametrize(
    "path", ["", "/", "/reboot", "/announce?x=1", "/x?/announce=1", "/x?y=/announce"]
)
async def test_what_does_not_look_like_a_tracker_is_not_asked_on_a_private_network(
    path: str,
) -> None:
    async with open_tracker(TestTracker()) as tracker:
        async with open_source(f"http://127.0.0.1:{tracker.port}{path}") as node:
            await until(lambda: "ends in /announce" in node.trouble)
        assert not tracker.requests


def test_which_places_are_private() -> None:
    odd = Tracker.parse("http://t.example/a?b")
    asked = Tracker.parse("http://t.example/announce?info_hash=1")
    check_place(odd, "1.1.1.1")
    check_place(odd, "2606:4700::1111")
    for ip in ("10.0.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:127.0.0.1", "fe80::1"):
        with pytest.raises(UnavailableError):
            check_place(odd, ip)
        check_place(Tracker.parse("http://t.example/key/announce"), ip)
        with pytest.raises(UnavailableError):
            check_redirect(asked, ip, "1.1.1.1")
    check_redirect(odd, "1.0.0.1", "1.1.1.1")
    check_redirect(odd, "1.0.0.1", "10.0.0.1")
    check_redirect(asked, "10.0.0.2", "10.0.0.1")
    for there, first in ((asked, "127.0.0.1"), (odd, "10.0.0.2")):
        with pytest.raises(UnavailableError):
            check_redirect(there, first, "10.0.0.1")


async def test_whatever_a_tracker_names_counts_as_its_word() -> None:
    """What may be believed of one that is there is for the finder to say."""
    listed = ["127.0.0.1", "10.1.2.3", "192.0.2.1"]
    peers = b"".join(socket.inet_aton(host) + b"\x1b\x59" for host in listed)
    async with open_tracker(TestTracker()) as tracker:
        tracker.reply = lambda target: http(bencoded({b"peers": peers}))
        async with open_source(tracker.url("http")) as node:
            await until(lambda: len(node.sightings) == len(listed))
            assert node.addresses == {f"{host}:7001" for host in listed}
            assert {sighting.teller for sighting in node.sightings} == {"127.0.0.1"}


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_tracker(TestTracker()) as proxy, open_tracker(TestTracker()) as tracker:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with open_source(tracker.url("http")):
            await until(lambda: tracker.heard)
        assert not proxy.requests


# --- HTTPS ----------------------------------------------------------------------------


async def test_https_is_asked_if_its_certificate_is_good_for_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path)
    tls = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    trusted = ssl.create_default_context
    monkeypatch.setattr(tracker_http, "_trusted", trusted)
    async with open_tracker(TestTracker(), tls=tls) as tracker:
        url = f"https://localhost:{tracker.port}/announce"
        async with open_source(url):
            await until(lambda: tracker.heard)
        async with open_source(tracker.url("https")) as node:
            await until(lambda: "no secure connection" in node.trouble)
        monkeypatch.delenv("SSL_CERT_FILE")
        heard = len(tracker.heard)
        async with open_source(url) as node:
            await until(lambda: "no secure connection" in node.trouble)
        assert len(tracker.heard) == heard


# --- UDP ------------------------------------------------------------------------------


async def test_a_lost_packet_is_sent_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "RETRANSMIT_SECONDS", (0.2, 0.4, 0.8))
    async with open_tracker(TestTracker()) as tracker:
        answer, tracker.packet_reply = tracker.udp_answer, None
        lost: list[float] = []

        def lossy(packet: bytes, ip: str) -> bytes | None:
            if len(lost) < 2:
                lost.append(trio.current_time())
                return None
            return answer(packet, ip)

        tracker.udp_answer = lossy  # type: ignore[method-assign]
        async with open_source(tracker.url("udp")):
            await until(lambda: tracker.heard)
        assert 0.15 < lost[1] - lost[0] < 2
        assert 0.35 < tracker.packets[0][0] - lost[1] < 2


async def test_a_silent_udp_tracker_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "RETRANSMIT_SECONDS", (0.05, 0.1))
    async with open_tracker(TestTracker()) as tracker:
        tracker.packet_reply = lambda packet: None
        async with open_source(tracker.url("udp")) as node:
            await until(lambda: node.trouble == "no answer within 0.15 s")
        assert len(tracker.packets) == 2


async def test_a_udp_tracker_that_is_not_there_is_noticed_at_once() -> None:
    async with open_tracker(TestTracker()) as tracker:
        gone = tracker.url("udp")
    async with open_source(gone) as node:
        await until(lambda: node.trouble == "no connection: connection refused")


async def test_a_connection_id_serves_until_it_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_tracker(TestTracker()) as tracker:
        asker = tracker_udp.UdpAsker(Tracker.parse(tracker.url("udp")), Random(1))
        announce = wire.Announce(bytes(20), bytes(20), 1, 1, True, wire.Event.NONE)
        for seconds, connections in ((60.0, 1), (60.0, 1), (0.0, 1)):
            monkeypatch.setattr(packets, "CONNECTION_SECONDS", seconds)
            await asker.ask("127.0.0.1", announce)
            assert len(tracker.connections) == connections
        asker.close()
        for connections in (2, 3):
            await asker.ask("127.0.0.1", announce)
            assert len(tracker.connections) == connections
        asker.close()


async def test_a_connection_id_that_is_refused_is_renewed_at_once() -> None:
    async with open_tracker(TestTracker()) as tracker, open_source(tracker.url("udp")) as node:
        await until(lambda: tracker.heard)
        tracker.connections.clear()
        node.interests.add(TWO, wanted=True)
        await until(lambda: len(tracker.heard) == 2)
        assert not node.trouble


async def test_stray_and_forged_packets_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "RETRANSMIT_SECONDS", (0.1, 4.0))
    async with open_tracker(TestTracker()) as tracker:

        def forged(packet: bytes) -> bytes:
            _, action, transaction = struct.unpack_from(">QII", packet)
            return struct.pack(">IIQ", action, transaction ^ 1, 1)

        tracker.packet_reply = forged
        async with open_source(tracker.url("udp")):
            await until(lambda: tracker.packets)
            tracker.packet_reply = None
            await until(lambda: tracker.heard)


@pytest.mark.parametrize(
    "tail", [b"", b"\0" * 7, b"\0" * 5000], ids=["empty", "cut short", "oversized"]
)
async def test_a_udp_tracker_that_answers_nonsense_is_left_alone(tail: bytes) -> None:
    async with open_tracker(TestTracker()) as tracker:
        tracker.packet_reply = lambda packet: struct.pack(">I", 9) + packet[12:16] + tail
        async with open_source(tracker.url("udp")) as node:
            await until(lambda: "packet is of" in node.trouble)
            assert len(tracker.packets) == 1
