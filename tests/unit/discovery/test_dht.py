"""A node of the DHT among others on loopback."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.errors import EnvironmentFault
from furymesh.core.link import Address
from furymesh.discovery import dht, dht_state
from furymesh.discovery.dht import MAX_ITEM, Dht, DhtSettings, open_dht
from furymesh.discovery.dht_entrances import Entrances
from furymesh.net.identity import Identity
from tests.dht import DhtNetwork
from tests.waiting import until

INFO_HASH = bytes(range(20))
SALT = b"test"


def settings(
    network: DhtNetwork, host: str, *, bootstrap: int = 0, state: Path | None = None
) -> DhtSettings:
    return DhtSettings((network.entrances[bootstrap],), host, state=state)


def identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


def state_of(*nodes: bytes) -> bytes:
    return bencoded({"dht state": {"nodes": list(nodes)}})


def bencoded(value: Any) -> bytes:
    return lt.bencode(value)


async def asked(dht: Dht, condition: Callable[[], object]) -> None:
    """Ask for INFO_HASH again and again until `condition` holds."""
    with trio.fail_after(20):
        while not condition():
            dht.get_peers(INFO_HASH)
            with trio.move_on_after(0.2):
                while not condition():
                    await trio.sleep(0.01)


async def test_what_one_node_announces_another_finds(dht_nodes: DhtNetwork) -> None:
    found: set[tuple[str, int]] = set()
    async with (
        open_dht(settings(dht_nodes, "127.0.0.20")) as one,
        open_dht(settings(dht_nodes, "127.0.0.21", bootstrap=1)) as two,
    ):
        await one.joined.wait()
        await two.joined.wait()
        one.announce(INFO_HASH, 7654)
        with two.listening(INFO_HASH, found.update):
            await asked(two, lambda: found)
        assert found == {("127.0.0.20", 7654)}


async def test_who_listens_no_more_hears_no_more(dht_nodes: DhtNetwork) -> None:
    before: set[tuple[str, int]] = set()
    after: set[tuple[str, int]] = set()
    async with open_dht(settings(dht_nodes, "127.0.0.20")) as dht:
        await dht.joined.wait()
        dht.announce(INFO_HASH, 7654)
        with dht.listening(INFO_HASH, before.update):
            await asked(dht, lambda: before)
        before.clear()
        with dht.listening(INFO_HASH, after.update):
            await asked(dht, lambda: after)
        assert not before


async def test_what_is_stored_under_a_node_id_is_read_elsewhere(dht_nodes: DhtNetwork) -> None:
    me = identity()
    async with (
        open_dht(settings(dht_nodes, "127.0.0.20")) as one,
        open_dht(settings(dht_nodes, "127.0.0.21", bootstrap=1)) as two,
    ):
        await one.joined.wait()
        await two.joined.wait()
        assert await one.put(me, SALT, b"first \0\xff") > 0
        assert await two.get(me.node_id, SALT) == b"first \0\xff"
        assert await one.put(me, SALT, b"second") > 0
        assert await two.get(me.node_id, SALT) == b"second"
        assert await two.get(me.node_id, b"other salt", 1.0) is None
        assert await two.get(identity().node_id, SALT, 1.0) is None


async def test_a_value_that_no_node_would_take_is_refused(dht_nodes: DhtNetwork) -> None:
    async with open_dht(settings(dht_nodes, "127.0.0.20")) as dht:
        with pytest.raises(ValueError, match="too long"):
            await dht.put(identity(), SALT, bytes(MAX_ITEM))


async def test_without_any_other_node_requests_end_without_an_answer() -> None:
    async with open_dht(DhtSettings(host="127.0.0.20")) as dht:
        await dht.joined.wait()
        with trio.fail_after(5):
            assert await dht.put(identity(), SALT, b"value", 0.5) == 0
            assert await dht.get(identity().node_id, SALT, 0.5) is None


async def test_who_joined_once_needs_no_bootstrap_node(
    dht_nodes: DhtNetwork, tmp_path: Path
) -> None:
    state = tmp_path / "dht.state"
    found: set[tuple[str, int]] = set()
    async with open_dht(settings(dht_nodes, "127.0.0.20", state=state)) as dht:
        await dht.joined.wait()
        dht.announce(INFO_HASH, 7654)
        with dht.listening(INFO_HASH, found.update):
            await asked(dht, lambda: found)
    found.clear()
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o600
    dht_nodes.kill(dht_nodes.entrances[0])
    async with open_dht(DhtSettings((), "127.0.0.21", state=state)) as dht:
        await dht.joined.wait()
        with dht.listening(INFO_HASH, found.update):
            await asked(dht, lambda: found)
    assert found == {("127.0.0.20", 7654)}


async def test_what_was_announced_is_found_after_the_death_of_the_announcers_bootstrap_node(
    dht_nodes: DhtNetwork,
) -> None:
    found: set[tuple[str, int]] = set()
    async with (
        open_dht(settings(dht_nodes, "127.0.0.20")) as one,
        open_dht(settings(dht_nodes, "127.0.0.21", bootstrap=1)) as two,
    ):
        await one.joined.wait()
        await two.joined.wait()
        one.announce(INFO_HASH, 7654)
        with two.listening(INFO_HASH, found.update):
            await asked(two, lambda: found)
        found.clear()
        dht_nodes.kill(dht_nodes.entrances[0])
        with two.listening(INFO_HASH, found.update):
            await asked(two, lambda: found)
        assert found == {("127.0.0.20", 7654)}


async def test_who_meets_nobody_keeps_the_nodes_of_before(tmp_path: Path) -> None:
    state = tmp_path / "dht.state"
    dht_state.save(state, state_of(b"\x7f\0\0\x63\0\x09"))
    async with open_dht(DhtSettings((), "127.0.0.20", state=state)):
        pass
    assert dht_state.load(state) == (("127.0.0.99", 9),)


async def test_a_name_that_is_not_known_yet_is_asked_for_again(
    dht_nodes: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrance = dht_nodes.entrances[0]
    lookups = []

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
            lookups.append(host)
            if len(lookups) == 1:
                raise OSError("no name server")
            return await trio.to_thread.run_sync(lambda: [(2, 2, 17, "", (entrance.host, port))])

        async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
            raise AssertionError("nobody asks for the name of an address")

    trio.socket.set_custom_hostname_resolver(Resolver())
    bootstrap = Address("dht.example.org", entrance.port)
    me = identity()
    async with open_dht(DhtSettings((bootstrap,), "127.0.0.20")) as dht:
        # Nothing is believed before it is known where this is.
        assert not dht.entrances.believes("127.0.0.1", 7654)
        assert not dht.joined.is_set()
        await until(dht.joined.is_set)
        assert dht.entrances.believes("127.0.0.1", 7654)
        with trio.fail_after(10):
            while not await dht.put(me, SALT, b"value", 1.0):
                pass
    assert lookups == [b"dht.example.org"] * 2


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
    me = identity()
    async with open_dht(settings(dht_nodes, "0.0.0.0")) as dht:
        await dht.joined.wait()
        assert await dht.put(me, SALT, b"value") > 0
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


@pytest.mark.parametrize("bootstrap", [(), (Address("10.0.0.5", 6881),)])
def test_nodes_met_in_the_public_dht_are_no_entrances_to_a_private_one(
    bootstrap: tuple[Address, ...],
) -> None:
    entrances = Entrances(bootstrap, (("8.8.8.8", 9), ("10.0.0.1", 9)))
    assert entrances.known == (("10.0.0.1", 9),)
    assert entrances.private


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
