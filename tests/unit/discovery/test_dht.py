"""A node of the DHT among others on loopback."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest
import trio

from furymesh.core.errors import EnvironmentFault
from furymesh.core.link import Address
from furymesh.discovery import dht, dht_entrances, dht_state
from furymesh.discovery.dht import Dht, DhtSettings, open_dht
from furymesh.discovery.dht_entrances import Entrances
from tests.dht import DhtNetwork, announced
from tests.waiting import until

INFO_HASH = bytes(range(20))


def settings(
    network: DhtNetwork, host: str, *, bootstrap: int = 0, state: Path | None = None
) -> DhtSettings:
    return DhtSettings((network.entrances[bootstrap],), host, state=state)


@asynccontextmanager
async def taking_part(settings: DhtSettings) -> AsyncIterator[Dht]:
    async with open_dht(settings) as dht:
        await dht.joined.wait()
        yield dht


def state_of(*nodes: bytes) -> bytes:
    return bencoded({"dht state": {"nodes": list(nodes)}})


def bencoded(value: Any) -> bytes:
    return lt.bencode(value)


@pytest.mark.parametrize("bootstrap_node_dies", [False, True])
async def test_what_one_node_announces_another_finds(
    dht_nodes: DhtNetwork, bootstrap_node_dies: bool
) -> None:
    async with (
        taking_part(settings(dht_nodes, "127.0.0.20")) as one,
        taking_part(settings(dht_nodes, "127.0.0.21", bootstrap=1)) as two,
    ):
        one.announce(INFO_HASH, 7654)
        assert await announced(two, INFO_HASH) == {("127.0.0.20", 7654)}
        if bootstrap_node_dies:
            dht_nodes.kill(dht_nodes.entrances[0])
            assert await announced(two, INFO_HASH) == {("127.0.0.20", 7654)}


async def test_who_listens_no_more_hears_no_more(dht_nodes: DhtNetwork) -> None:
    before: set[tuple[str, int]] = set()
    async with taking_part(settings(dht_nodes, "127.0.0.20")) as dht:
        dht.announce(INFO_HASH, 7654)
        with dht.listening(INFO_HASH, before.update):
            await announced(dht, INFO_HASH)
        assert before
        before.clear()
        await announced(dht, INFO_HASH)
        assert not before


async def test_who_joined_once_needs_no_bootstrap_node(
    dht_nodes: DhtNetwork, tmp_path: Path
) -> None:
    state = tmp_path / "dht.state"
    async with taking_part(settings(dht_nodes, "127.0.0.20", state=state)) as dht:
        dht.announce(INFO_HASH, 7654)
        await announced(dht, INFO_HASH)
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o600
    dht_nodes.kill(dht_nodes.entrances[0])
    async with taking_part(DhtSettings((), "127.0.0.21", state=state)) as dht:
        assert await announced(dht, INFO_HASH) == {("127.0.0.20", 7654)}


async def test_who_has_another_address_goes_on_from_there(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which address leads to the others is for the system to say; here it changes its mind."""
    own = ["127.0.0.20"]
    monkeypatch.setattr(dht_entrances, "address_towards", lambda host, port: own[0])
    async with (
        taking_part(settings(dht_nodes, "0.0.0.0")) as one,
        taking_part(settings(dht_nodes, "127.0.0.21", bootstrap=1)) as two,
    ):
        own[0] = "127.0.0.23"
        await one.move()
        assert one.nodes
        one.announce(INFO_HASH, 7654)
        assert await announced(two, INFO_HASH) == {("127.0.0.23", 7654)}
        assert await announced(one, INFO_HASH)


async def test_without_any_other_node_it_says_so(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht, "JOIN_SECONDS", 0.2)
    async with taking_part(DhtSettings((Address("127.0.0.99", 9),), "127.0.0.20")) as alone:
        assert alone.trouble == "no other node answers"
    async with taking_part(settings(dht_nodes, "127.0.0.20")) as among_others:
        assert not among_others.trouble


async def test_who_meets_nobody_keeps_the_nodes_of_before(tmp_path: Path) -> None:
    state = tmp_path / "dht.state"
    dht_state.save(state, state_of(b"\x7f\0\0\x63\0\x09"))
    async with open_dht(DhtSettings((), "127.0.0.20", state=state)):
        pass
    assert dht_state.load(state) == (("127.0.0.99", 9),)


async def test_a_name_is_asked_for_again_until_it_leads_into_the_public_dht(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht, "RESOLVE_PAUSES", (0.1, 0.1))
    monkeypatch.setattr(dht, "JOIN_SECONDS", 0.1)
    # Lies that would make it a private one; and then an address to which this node, which
    # listens on IPv4 alone, sends nothing.
    answers = [[], ["10.0.0.5", "127.0.0.2", "fd00::1", "0.0.0.0"], ["2606:4700::1111"]]
    asked: list[str] = []

    def look_up(host: str, port: int, family: int, kind: int) -> Any:
        asked.append(host)
        if not (found := answers[min(len(asked), len(answers)) - 1]):
            raise socket.gaierror("no name server")
        return [(0, kind, 0, "", (ip, port)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    bootstrap = Address("dht.example.org", 6881)
    async with open_dht(DhtSettings((bootstrap,), "127.0.0.20")) as node:
        assert node.trouble == "no name server tells where its bootstrap nodes are"
        await until(lambda: "lead to private addresses" in node.trouble)
        await until(node.joined.is_set)
        assert node.entrances.places == (("2606:4700::1111", 6881),)
        assert not node.entrances.believes("127.0.0.1", 7654)
    assert asked == ["dht.example.org"] * 3


async def test_an_address_that_is_not_ours_is_the_environments_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht, "LISTEN_SECONDS", 0.2)
    with pytest.raises(EnvironmentFault, match=r"cannot listen on 192\.0\.2\.99"):
        async with open_dht(DhtSettings((), "192.0.2.99")):
            pass


async def test_it_ends_soon_when_cancelled_and_frees_its_port(dht_nodes: DhtNetwork) -> None:
    with trio.CancelScope() as scope:
        async with open_dht(settings(dht_nodes, "127.0.0.20")) as dht:
            port = dht.port
            scope.cancel()
            started = trio.current_time()
            await trio.sleep_forever()
    assert trio.current_time() - started < 2
    async with open_dht(DhtSettings((), "127.0.0.20", port)) as dht:
        assert dht.port == port


async def test_all_addresses_are_those_from_which_the_other_nodes_are_reached(
    dht_nodes: DhtNetwork,
) -> None:
    async with taking_part(settings(dht_nodes, "0.0.0.0")) as dht:
        dht.announce(INFO_HASH, 7654)
        assert await announced(dht, INFO_HASH) == {("127.0.0.1", 7654)}
    own = Entrances((), (("127.0.0.2", 9),)).settings("0.0.0.0", 7)
    assert own["listen_interfaces"] == "127.0.0.1:7"
    alone = Entrances((), ()).settings("0.0.0.0", 7)
    assert "127.0.0.1:7" in alone["listen_interfaces"].split(",")
    public = Entrances([Address("9.9.9.9", 9)], (("8.8.8.8", 9),)).settings("0.0.0.0", 7)
    assert public["listen_interfaces"] == "0.0.0.0:7"
    assert Entrances((), ()).settings("::1", 7)["listen_interfaces"] == "[::1]:7"


@pytest.mark.parametrize(
    ("host", "public", "private"),
    [
        ("8.8.8.8", True, True),
        ("2606:4700::1111", True, True),
        ("127.0.0.1", False, True),
        ("10.0.0.1", False, True),
        ("192.168.1.1", False, True),
        ("169.254.1.1", False, True),
        ("fd00::1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.251", False, False),
        ("ff02::1", False, False),
        ("example.org", False, False),
    ],
)
async def test_which_addresses_are_believed(host: str, public: bool, private: bool) -> None:
    of_private = Entrances((), (("127.0.0.2", 9), ("10.0.0.1", 9)))
    of_both = Entrances([Address("9.9.9.9", 9)], (("8.8.8.8", 9), ("127.0.0.2", 9)))
    of_unknown = Entrances([Address("dht.example.org", 9)], ())
    of_nobody = Entrances((), ())
    assert of_both.believes(host, 7654) is of_unknown.believes(host, 7654) is public
    assert of_private.believes(host, 7654) is of_nobody.believes(host, 7654) is private
    assert not of_private.believes(host, 0)


@pytest.mark.parametrize(
    ("bootstrap", "private"),
    [
        ([], True),
        (["10.0.0.5"], True),
        (["10.0.0.5", "fd00::5"], True),
        (["dht.example.org"], False),
        (["10.0.0.5", "dht.example.org"], False),
        (["10.0.0.5", "9.9.9.9"], False),
    ],
)
def test_the_configuration_says_whether_a_dht_is_private_and_no_node_leads_to_another(
    bootstrap: list[str], private: bool
) -> None:
    met = (("8.8.8.8", 9), ("10.0.0.1", 9))
    entrances = Entrances([Address(host, 6881) for host in bootstrap], met)
    assert entrances.private is private
    assert entrances.known == (met[1] if private else met[0],)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        b"de",
        b"le",
        bencoded({"dht state": 5}),
        bencoded({"dht state": {"nodes": 7}}),
        bencoded({"dht state": {"nodes": [b"short", 7, [b""], b"\x7f\0\0\1\0\0"]}}),
        b"d9:dht stated5:nodesl6:\x7f\0\0\1\1",
        b"l" * 10_000,
    ],
)
def test_damaged_state_names_no_nodes(raw: bytes, tmp_path: Path) -> None:
    assert dht_state.decode(raw) == ()
    (tmp_path / "dht.state").write_bytes(raw)
    assert dht_state.load(tmp_path / "dht.state") == ()


def test_state_that_is_absent_or_too_large_names_no_nodes(tmp_path: Path) -> None:
    assert dht_state.load(tmp_path / "dht.state") == ()
    (tmp_path / "dht.state").write_bytes(bytes(dht_state.MAX_STATE + 1))
    assert dht_state.load(tmp_path / "dht.state") == ()


def test_state_keeps_addresses_of_both_kinds_and_not_too_many() -> None:
    two = bencoded(
        {"dht state": {"nodes": [b"\0\0\2\1\x1a\xe1"], "nodes6": [bytes(15) + b"\1\xff\xff"]}}
    )
    assert dht_state.decode(two) == (("0.0.2.1", 6881), ("::1", 65535))
    many = [bytes([10, 0, *divmod(number, 256), 0, 1]) for number in range(1000)]
    assert len(dht_state.decode(state_of(*many))) == dht_state.MAX_NODES
