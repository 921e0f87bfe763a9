"""What a relay carries and for whom, by what it says to ends that are spoken by hand."""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.errors import FuryMeshError, HandshakeError, LinkClosedError
from furymesh.net import relay as relay_module
from furymesh.net import strangers
from furymesh.net.addresses import unpacked_ip
from furymesh.net.connect import Endpoint
from furymesh.net.identity import Identity
from furymesh.net.relay import RELAY, RENDEZVOUS, Relay
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m
from tests.limits import open_files
from tests.unit.net.relay_lab import Guest, refused, relay_of, spliced
from tests.waiting import until


async def test_two_ends_shake_hands_through_a_relay_that_sees_no_key() -> None:
    async with relay_of() as place:
        one, two = place.guest(), place.guest()
        await one.come()
        await two.come()
        outer, inner = await spliced(one, two)
        summons = await two.summons()
        assert summons.node_id == one.endpoint.identity.node_id
        assert one.link is not None
        assert one.link.socket is not None
        where = (unpacked_ip(summons.ip), summons.port)
        assert where == one.link.socket.getsockname()
        made: dict[str, SecureLink] = {}

        async def establish(name: str, guest: Guest, link: SecureLink, initiator: bool) -> None:
            assert link.socket is not None
            made[name] = await guest.endpoint.establish(
                link.socket, link.remote, initiator=initiator, relayed=True
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(establish, "one", one, outer, True)
            nursery.start_soon(establish, "two", two, inner, False)
        assert made["one"].node_id == two.endpoint.identity.node_id
        assert made["two"].node_id == one.endpoint.identity.node_id
        assert made["one"].hello is not None
        assert not made["one"].hello.observed_ip
        await made["one"].say(m.Ping(7))
        assert await made["two"].hear() == m.Ping(7)
        assert place.relay.sessions == 1
        made["one"].close()
        with pytest.raises(LinkClosedError):
            await made["two"].hear()
        made["two"].close()
        await until(lambda: place.relay.sessions == 0)


async def test_another_node_behind_a_relay_is_noticed() -> None:
    """A relay that connects with somebody else, itself perhaps, gets no link."""
    async with relay_of() as place:
        one, two = place.guest(), place.guest()
        await two.come()
        outer, inner = await spliced(one, two)
        impostor = place.guest()

        async def pretend() -> None:
            assert inner.socket is not None
            with pytest.raises(FuryMeshError):
                await impostor.endpoint.establish(
                    inner.socket, inner.remote, initiator=False, relayed=True
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pretend)
            assert outer.socket is not None
            with pytest.raises(HandshakeError, match="not the expected"):
                await one.endpoint.establish(
                    outer.socket,
                    outer.remote,
                    initiator=True,
                    expected=two.endpoint.identity.node_id,
                    relayed=True,
                )


async def test_who_is_not_here_is_not_reached() -> None:
    async with relay_of() as place:
        one, two = place.guest(), place.guest()
        await one.come()
        assert await refused(await one.reach(two)) is m.Reason.NOT_FOUND
        assert await refused(await one.reach(one)) is m.Reason.FORBIDDEN
        assert place.relay.sessions == 0


async def test_a_token_is_good_once_and_for_who_was_summoned() -> None:
    async with relay_of() as place:
        one, two, thief = place.guest(), place.guest(), place.guest()
        await two.come()
        asking = await one.reach(two)
        answer = m.Answer((await two.summons()).token)
        assert await refused(await thief.connection(answer)) is m.Reason.NOT_FOUND
        guessed = m.Answer(bytes(16))
        assert await refused(await two.connection(guessed)) is m.Reason.NOT_FOUND
        first = await two.connection(answer)
        assert isinstance(await first.hear(), m.Spliced)
        assert isinstance(await asking.hear(), m.Spliced)
        assert await refused(await two.connection(answer)) is m.Reason.NOT_FOUND


async def test_who_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "HALF_OPEN_SECONDS", 0.2)
    async with relay_of() as place:
        one, two = place.guest(), place.guest()
        await two.come()
        assert await refused(await one.reach(two)) is m.Reason.NOT_FOUND
        assert await refused(await two.connection(m.Answer((await two.summons()).token)))
        assert place.relay.sessions == 0
        silent = await one.dial(RELAY)
        with pytest.raises(LinkClosedError):
            await silent.hear()


@pytest.mark.parametrize(
    ("limit", "strangers"),
    [
        ("MAX_SESSIONS_PER_NODE", False),
        ("MAX_SESSIONS_PER_TARGET", True),
        ("max_sessions", True),
    ],
)
async def test_nobody_takes_all_the_sessions(
    limit: str, strangers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit != "max_sessions":
        monkeypatch.setattr(relay_module, limit, 3)
    if limit == "MAX_SESSIONS_PER_NODE":  # where none of its own makes way
        monkeypatch.setattr(relay_module, "GRACE_SECONDS", 0.0)
    async with relay_of(3 if limit == "max_sessions" else 64) as place:
        target, asker = place.guest(), place.guest()
        await target.come()
        async with AsyncExitStack() as stack:
            for number in range(3):
                link = await (place.guest() if strangers else asker).reach(target)
                stack.callback(link.close)
                await target.summoned(number + 1)
            last = place.guest() if strangers else asker
            assert await refused(await last.reach(target)) is m.Reason.BUSY
            assert place.relay.sessions == 3
        if limit == "MAX_SESSIONS_PER_NODE":
            other = await place.guest().reach(target)
            await target.summoned(4)
            other.close()


async def test_who_says_nothing_makes_way_for_who_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MAX_HANDSHAKES_PER_HOST", 3)
    async with relay_of() as place:
        target, mute = place.guest(), place.guest()
        await target.come()
        silent = [await mute.dial(RELAY) for _ in range(4)]
        with pytest.raises(LinkClosedError):
            await silent[0].hear()
        await place.guest().reach(target)
        await target.summons()


async def test_other_links_are_none_of_its_business() -> None:
    async with relay_of() as place:
        link = await place.guest().dial()
        await until(lambda: place.others)
        assert link.hello is not None
        assert {RENDEZVOUS, RELAY} <= set(link.hello.features)


# --- limits -----------------------------------------------------------------------------


@pytest.mark.usefixtures("addresses_tell")
@pytest.mark.parametrize("limit", ["MAX_SESSIONS_PER_MACHINE", "MAX_SESSIONS_PER_PAIR"])
async def test_all_nodes_of_a_machine_together_get_the_sessions_of_one(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, limit, 2)
    monkeypatch.setattr(relay_module, "GRACE_SECONDS", 0.0)
    async with relay_of() as place:
        target = place.guest(source="127.0.0.9")
        await target.come()
        for number in range(2):
            await place.guest().reach(target)
            await target.summoned(number + 1)
        assert await refused(await place.guest().reach(target)) is m.Reason.BUSY
        await place.guest(source="127.0.0.2").reach(target)
        await target.summoned(3)
        assert place.relay.sessions == 3


async def talk(one: SecureLink, other: SecureLink) -> None:
    """Send some bytes through a splice."""
    assert one.socket is not None
    assert other.socket is not None
    one.socket.send(bytes(1000))
    left = 1000
    while left:
        await trio.lowlevel.wait_readable(other.socket)
        left -= len(other.socket.recv(left))


@pytest.mark.parametrize("limit", ["max_sessions", "MAX_SESSIONS_PER_TARGET"])
@pytest.mark.parametrize("busy", [0, 1])
async def test_session_that_carries_least_makes_way_for_a_newcomer(
    busy: int, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "GRACE_SECONDS", 0.0)
    if limit != "max_sessions":
        monkeypatch.setattr(relay_module, limit, 2)
    async with relay_of(2 if limit == "max_sessions" else 64) as place:
        target = place.guest()
        await target.come()
        sessions = [await spliced(place.guest(), target) for _ in range(2)]
        await talk(*sessions[busy])
        await place.guest().reach(target)
        await target.summoned(3)
        for end in sessions[1 - busy]:
            with pytest.raises(LinkClosedError):
                await end.hear()
        await talk(*sessions[busy])
        assert place.relay.sessions == 2


@pytest.mark.usefixtures("addresses_tell")
async def test_who_keeps_a_relay_full_makes_way_for_who_has_fewer_places() -> None:
    async with relay_of(3) as place:
        target = place.guest(source="127.0.0.9")
        await target.come()
        busy, *_ = [await spliced(place.guest(), target) for _ in range(3)]
        await talk(*busy)
        other = place.guest(source="127.0.0.2")
        await other.reach(target)
        await target.summoned(4)
        assert await refused(await place.guest().reach(target)) is m.Reason.BUSY
        assert await refused(await other.reach(target)) is m.Reason.BUSY
        await talk(*busy)
        assert place.relay.sessions == 3


async def test_files_are_left_for_what_the_node_does_besides() -> None:
    async def otherwise(link: SecureLink) -> None:
        raise AssertionError("nobody dials")

    endpoint = Endpoint(Identity(Ed25519PrivateKey.generate()))
    with open_files(32):
        assert Relay(endpoint, Random(1), otherwise, max_sessions=64).max_sessions == 4
        assert Relay(endpoint, Random(1), otherwise, max_sessions=3).max_sessions == 3
