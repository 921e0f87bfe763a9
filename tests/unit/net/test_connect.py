from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core.errors import EnvironmentFault, HandshakeError, UnavailableError
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.net import connect, resolving, strangers
from furymesh.net.addresses import packed_ip, unpacked_ip
from furymesh.net.connect import MAX_LOOKUPS, Endpoint, listen
from furymesh.net.identity import Identity, load_or_create
from furymesh.net.interfaces import reachable_hosts
from furymesh.net.secure_link import SecureLink
from tests.waiting import until


@pytest.fixture
def identities(tmp_path: Path) -> list[Identity]:
    homes = [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    return [load_or_create(home) for home in homes]


@asynccontextmanager
async def serving(endpoint: Endpoint) -> AsyncIterator[tuple[Address, list[SecureLink]]]:
    """Accept links on a free port; the address and the links so far."""
    links: list[SecureLink] = []

    async def keep(link: SecureLink) -> None:
        links.append(link)

    listeners = listen(Address("127.0.0.1", 0))
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(endpoint.serve, listeners, keep)
                yield Address("127.0.0.1", listeners[0].getsockname()[1]), links
                nursery.cancel_scope.cancel()
    finally:
        for sock in listeners:
            sock.close()
        for link in links:
            link.close()


async def test_both_ends_know_each_other(identities: list[Identity]) -> None:
    one, two = (Endpoint(identity, listen_port=7000) for identity in identities)
    async with serving(one) as (address, links):
        link = await two.dial(address)
        await until(lambda: links)
        assert link.node_id == identities[0].node_id
        assert links[0].node_id == identities[1].node_id
        assert (link.instance, links[0].instance) == (one.instance, two.instance)
        assert links[0].hello is not None
        assert links[0].hello.listen_port == 7000
        assert link.initiator
        assert not links[0].initiator
        link.close()


def test_strangers_from_outside_hear_of_the_port_that_a_router_forwards(
    identities: list[Identity],
) -> None:
    one = Endpoint(identities[0], listen_port=7000)
    assert one._hello(("1.2.3.4", 9)).listen_port == 7000
    one.public_port = 40001
    assert one._hello(("1.2.3.4", 9)).listen_port == 40001
    assert one._hello(("192.168.1.4", 9)).listen_port == 7000
    assert one._hello(("2606:4700::1111", 9)).listen_port == 7000  # no router maps that
    assert one._hello(None).listen_port == 7000


async def test_wrong_node_is_refused(identities: list[Identity]) -> None:
    one, two = map(Endpoint, identities)
    async with serving(one) as (address, links):
        pinned = Address(address.host, address.port, NodeId(bytes(32)))
        with pytest.raises(HandshakeError, match="not the expected"):
            await two.dial(pinned)
        right = Address(address.host, address.port, identities[0].node_id)
        (await two.dial(right)).close()
        assert len(links) <= 1


async def test_allow_list_holds_on_both_ends(identities: list[Identity]) -> None:
    nobody = frozenset({NodeId(bytes(32))})
    one, two = map(Endpoint, identities)
    one.allow = nobody
    async with serving(one) as (address, links):
        with pytest.raises((HandshakeError, UnavailableError)):
            await two.dial(address)
        assert not links
    one.allow, two.allow = None, nobody
    async with serving(one) as (address, links):
        with pytest.raises(HandshakeError, match="allow-list"):
            await two.dial(address)
        assert not links


@pytest.mark.parametrize(("here", "there"), [(None, b"a" * 32), (b"a" * 32, b"b" * 32)])
async def test_pre_shared_key_must_agree(
    identities: list[Identity], here: bytes | None, there: bytes
) -> None:
    one, two = Endpoint(identities[0], psk=here), Endpoint(identities[1], psk=there)
    async with serving(one) as (address, links):
        with pytest.raises((HandshakeError, UnavailableError)):
            await two.dial(address)
        assert not links
        one.psk = there
        (await two.dial(address)).close()


async def test_nobody_listens(identities: list[Identity]) -> None:
    with pytest.raises(UnavailableError, match="refused"):
        await Endpoint(identities[0]).dial(Address("127.0.0.1", 1))


async def test_unknown_host(identities: list[Identity]) -> None:
    with pytest.raises(UnavailableError, match="no such host"):
        await Endpoint(identities[0]).dial(Address("nowhere.invalid", 7000))


def names(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[str]]) -> None:
    """Have the name servers answer so."""

    def getaddrinfo(host: str, port: int, *rest: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (ip, port)) for ip in answer()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_all_addresses_of_a_host_are_tried(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = map(Endpoint, identities)
    async with serving(one) as (address, _):
        names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.1"])
        link = await two.dial(Address("several.example", address.port))
        assert link.remote == ("127.0.0.1", address.port)
        link.close()


async def test_name_servers_that_are_mute_hold_up_a_dial_for_so_long_and_no_other(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "RESOLVE_SECONDS", 0.1)
    end = threading.Event()
    one, two = map(Endpoint, identities)
    async with serving(one) as (address, _):

        def mute() -> list[str]:
            end.wait()
            return []

        names(monkeypatch, mute)
        try:
            for _ in range(MAX_LOOKUPS + 1):  # the last one waits for a thread
                with pytest.raises(UnavailableError, match="no name server answers"):
                    await two.dial(Address("peer.example", 1))
            (await two.dial(address)).close()
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        finally:
            end.set()


async def test_not_furymesh(identities: list[Identity]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        async def answer() -> None:
            await trio.lowlevel.wait_readable(server)
            sock, _ = server.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(HandshakeError):
                await Endpoint(identities[0]).dial(Address(*server.getsockname()))
            nursery.cancel_scope.cancel()


async def test_strangers_who_say_nothing_are_dropped(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "HANDSHAKE_SECONDS", 0.1)
    async with serving(Endpoint(identities[0])) as (address, links):
        with socket.create_connection((address.host, address.port)) as sock:
            sock.setblocking(False)
            await trio.lowlevel.wait_readable(sock)
            assert sock.recv(1) == b""
        assert not links


async def test_one_host_cannot_take_all_the_places(
    identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MAX_HANDSHAKES_PER_HOST", 2)
    one, two = map(Endpoint, identities)
    async with serving(one) as (address, links):
        socks = [socket.create_connection((address.host, address.port)) for _ in range(3)]
        try:
            socks[0].setblocking(False)
            await trio.lowlevel.wait_readable(socks[0])
            assert socks[0].recv(1) == b"", "the oldest makes way"
            (await two.dial(address)).close()
            await until(lambda: links)
            socks[2].setblocking(False)
            with pytest.raises(BlockingIOError):
                socks[2].recv(1)
        finally:
            for sock in socks:
                sock.close()


def test_taken_port_is_told() -> None:
    (first,) = listen(Address("127.0.0.1", 0))
    with first, pytest.raises(EnvironmentFault, match="the port is taken"):
        listen(Address("127.0.0.1", first.getsockname()[1]))


def test_what_is_no_address_of_this_machine_is_told() -> None:
    with pytest.raises(EnvironmentFault, match="no address of this machine"):
        listen(Address("192.0.2.99", 0))


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", {"127.0.0.1"}), ("::", {"127.0.0.1", "::1"})]
)
def test_all_addresses_are_those_of_both_families(host: str, reached: set[str]) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(sock) for sock in listen(Address(host, 0))]
        (port,) = {sock.getsockname()[1] for sock in listeners}
        for place in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((place, port)).close()
            except ConnectionRefusedError:
                assert place not in reached
            else:
                assert place in reached
        named = {host for sock in listeners for host in reachable_hosts(sock.getsockname()[0])}
        assert named & {"127.0.0.1", "::1"} == reached


def test_foreign_address_is_told() -> None:
    with pytest.raises(EnvironmentFault, match=r"192\.0\.2\.1"):
        listen(Address("192.0.2.1", 0))


def test_unknown_host_to_listen_on_is_told() -> None:
    with pytest.raises(EnvironmentFault, match=r"nowhere\.invalid"):
        listen(Address("nowhere.invalid", 0))


@pytest.mark.parametrize(
    ("text", "size"), [("192.0.2.7", 4), ("2001:db8::1", 16), ("::ffff:192.0.2.7", 4)]
)
def test_addresses_pack(text: str, size: int) -> None:
    raw = packed_ip(text)
    assert len(raw) == size
    assert packed_ip(unpacked_ip(raw)) == raw


def test_scoped_and_named_hosts() -> None:
    assert packed_ip("fe80::1%eth0") == packed_ip("fe80::1")
    assert packed_ip("example.org") == b""


async def test_host_that_is_no_name_is_an_unknown_host(identities: list[Identity]) -> None:
    with pytest.raises(UnavailableError, match="no such host"):
        await Endpoint(identities[0]).dial(Address("a..b", 1))
    with pytest.raises(UnavailableError, match="no such host"):
        await Endpoint(identities[0]).dial(Address("a" * 70 + ".example", 1))
