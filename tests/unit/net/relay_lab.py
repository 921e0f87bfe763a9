"""A relay that runs, and ends that speak to it by hand."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.core.link import Address
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
    source: str = ""  # the address of this machine that it comes from
    said: list[m.Message] = field(default_factory=list)
    link: SecureLink | None = None

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Ping):
            link.pong(message.nonce)
        self.said.append(message)

    async def dial(self, *features: str) -> SecureLink:
        relay = self.place.address
        sock = socket.create_connection((relay.host, relay.port), source_address=(self.source, 0))
        link = await self.endpoint.establish(
            sock, (relay.host, relay.port), initiator=True, features=features
        )
        self.place.links.append(link)
        return link

    async def come(self, *tags: bytes) -> None:
        self.link = await self.dial(RENDEZVOUS)
        self.place.tasks.start_soon(self.link.run, self)
        hosted = self.place.relay._rendezvous.link_to
        await until(lambda: hosted(self.endpoint.process))
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
        return await self.connection(m.Reach(*other.endpoint.process))

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

    def guest(self, identity: Identity | None = None, source: str = "") -> Guest:
        return Guest(self, Endpoint(identity or Identity(Ed25519PrivateKey.generate())), source)


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
    summoned = len(other.heard(m.Summons))
    asking = await one.reach(other)
    await other.summoned(summoned + 1)
    answering = await other.connection(m.Answer((await other.summons()).token))
    for link in (asking, answering):
        assert isinstance(await link.hear(), m.Spliced)
    return asking, answering
