"""The relay itself, by what it says to ends that are spoken by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.errors import FuryMeshError, HandshakeError, LinkClosedError
from furymesh.core.link import Address
from furymesh.net import relay as relay_module
from furymesh.net import strangers
from furymesh.net.addresses import unpacked_ip
from furymesh.net.connect import Endpoint, listen
from furymesh.net.handler import Shareless
from furymesh.net.identity import Identity
from furymesh.net.relay import RELAY, RENDEZVOUS, Relay
from furymesh.net.secure_link import SecureLink
from furymesh.wire import messages as m
from tests.waiting import until

TAG, OTHER = b"t" * 32, b"o" * 32


@dataclass(eq=False)
class Guest(Shareless):
    """A node at a relay, with a running rendezvous link."""

    place: Place
    endpoint: Endpoint
    said: list[m.Message] = field(default_factory=list)
    link: SecureLink | None = None

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Ping):
            link.pong(message.nonce)
        self.said.append(message)

    async def dial(self, *features: str) -> SecureLink:
        link = await self.endpoint.dial(self.place.address, features=features)
        self.place.links.append(link)
        return link

    async def come(self, *tags: bytes) -> None:
        hosted = self.place.relay.hosted
        self.link = await self.dial(RENDEZVOUS)
        self.place.tasks.start_soon(self.link.run, self)
        await until(lambda: self.place.relay.hosted > hosted)
        self.name(*tags)

    def name(self, *tags: bytes) -> None:
        assert self.link is not None
        self.link.send(m.Rendezvous(tags))

    async def connection(self, word: m.Message) -> SecureLink:
        """A connection of its own, on which one word was said."""
        link = await self.dial(RELAY)
        await link.say(word)
        return link

    async def reach(self, other: Guest) -> SecureLink:
        process = (other.endpoint.identity.node_id, other.endpoint.instance)
        return await self.connection(m.Reach(*process))

    def heard(self, kind: type[m.Message]) -> list[m.Message]:
        return [message for message in self.said if isinstance(message, kind)]

    async def summoned(self, times: int) -> None:
        await until(lambda: len(self.heard(m.Summons)) == times)

    async def summons(self) -> m.Summons:
        await until(lambda: self.heard(m.Summons))
        summons = self.heard(m.Summons)[-1]
        assert isinstance(summons, m.Summons)
        return summons


@dataclass
class Place:
    """A relay that runs."""

    relay: Relay
    address: Address
    tasks: trio.Nursery
    others: list[SecureLink]
    links: list[SecureLink]

    def guest(self, identity: Identity | None = None) -> Guest:
        return Guest(self, Endpoint(identity or Identity(Ed25519PrivateKey.generate())))


@asynccontextmanager
async def relay_of(max_sessions: int = 64) -> AsyncIterator[Place]:
    others: list[SecureLink] = []
    links: list[SecureLink] = []

    async def otherwise(link: SecureLink) -> None:
        others.append(link)

    endpoint = Endpoint(Identity(Ed25519PrivateKey.generate()))
    relay = Relay(endpoint, Random(1), otherwise, max_sessions=max_sessions)
    listeners = listen(Address("127.0.0.1", 0))
    address = Address("127.0.0.1", listeners[0].getsockname()[1], endpoint.identity.node_id)
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(endpoint.serve, listeners, relay.run_link)
                yield Place(relay, address, nursery, others, links)
                nursery.cancel_scope.cancel()
    finally:
        for sock in listeners:
            sock.close()
        for link in (*links, *others):
            link.close()


async def refused(link: SecureLink) -> m.Reason:
    said = await link.hear()
    assert isinstance(said, m.Goodbye)
    link.close()
    return said.reason


async def spliced(one: Guest, other: Guest) -> tuple[SecureLink, SecureLink]:
    """The outer links of a splice, one's first."""
    asking = await one.reach(other)
    answering = await other.connection(m.Answer((await other.summons()).token))
    for link in (asking, answering):
        assert isinstance(await link.hear(), m.Spliced)
    return asking, answering


async def test_who_names_the_same_tag_is_introduced_to_each_other() -> None:
    async with relay_of() as place:
        one, two, three = (place.guest() for _ in range(3))
        await one.come(TAG)
        await three.come(OTHER)
        await two.come(TAG, b"x" * 32)
        await until(lambda: one.said and two.said)
        for here, there in ((one, two), (two, one)):
            (said,) = here.heard(m.Introduction)
            assert isinstance(said, m.Introduction)
            assert (said.tag, said.node_id) == (TAG, there.endpoint.identity.node_id)
            assert said.instance == there.endpoint.instance
            assert there.link is not None
            assert there.link.socket is not None
            assert (unpacked_ip(said.ip), said.port) == there.link.socket.getsockname()
        assert not three.heard(m.Introduction)


async def test_tags_that_are_named_no_more_are_forgotten() -> None:
    async with relay_of() as place:
        one, two, three = (place.guest() for _ in range(3))
        await one.come(TAG)
        await two.come(TAG)
        await until(lambda: one.said)
        one.name(OTHER)
        assert two.link is not None
        two.link.close()
        await until(lambda: place.relay.hosted == 1)
        await three.come(TAG, OTHER)
        await until(lambda: three.said)
        assert [getattr(said, "tag", None) for said in three.said] == [OTHER]


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


async def test_nobody_takes_all_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_HOSTED_PER_NODE", 2)
    monkeypatch.setattr(relay_module, "MAX_HOSTED", 3)
    async with relay_of() as place:
        identity = Identity(Ed25519PrivateKey.generate())
        for _ in range(2):
            await place.guest(identity).come()
        third = place.guest(identity)
        link = await third.dial(RENDEZVOUS)
        assert await refused(link) is m.Reason.BUSY
        await place.guest().come()
        link = await place.guest().dial(RENDEZVOUS)
        assert await refused(link) is m.Reason.BUSY
        assert place.relay.hosted == 3


async def test_a_process_that_comes_anew_takes_its_own_place() -> None:
    async with relay_of() as place:
        one = place.guest()
        await one.come(TAG)
        before = one.link
        assert before is not None
        link = await one.dial(RENDEZVOUS)
        place.tasks.start_soon(link.run, one)
        await until(lambda: before.closed_because)
        assert place.relay.hosted == 1
        link.send(m.Rendezvous((TAG,)))
        two = place.guest()
        await two.come(TAG)
        await until(lambda: two.heard(m.Introduction))
        assert len(two.heard(m.Introduction)) == 1


async def test_who_names_tags_without_end_is_sent_away() -> None:
    async with relay_of() as place:
        one = place.guest()
        await one.come()
        assert one.link is not None
        for number in range(relay_module.BURST + 3):
            one.name(bytes([number]) * 32)
        await until(lambda: one.link is not None and one.link.farewell is m.Reason.BUSY)


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
