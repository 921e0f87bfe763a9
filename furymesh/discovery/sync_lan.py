"""Servers of folder sync on the local network: asking for them, and answering.

The datagrams and sockets are those by which peers find each other, with another
service in them. An answer is a hint: who is really there is for the secure link to
find out. Nothing is said by a server but in answer to a question, and no more often
than the limits here allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import trio

from furymesh.core.errors import ProtocolError
from furymesh.core.gate import Gate
from furymesh.core.ids import NodeId
from furymesh.core.link import Address
from furymesh.discovery.lan import (
    ANSWER_DELAY,
    ANSWERS,
    HEARD,
    HEARD_OF_ONE,
    LOOK_SECONDS,
    MAX_WAITING,
)
from furymesh.net.multicast import Multicast, Sender
from furymesh.wire.datagrams import (
    Discover,
    Offer,
    Service,
    decode,
    encode_discover,
    encode_offer,
)

FIRST_PAUSE = 0.5  # seconds after a first question, doubled after each
MAX_PAUSE = 8.0
MAX_SERVERS = 64  # that one look tells of; a household has one


async def answer_sync(
    node_id: NodeId, instance: bytes, port: int, listening: Sequence[str], rng: Random
) -> None:
    """Answer questions for servers, until cancelled; raises EnvironmentFault without a socket.

    `listening` are the IP addresses to which the server's listeners are bound.
    """
    heard, answers = Gate(HEARD_OF_ONE, HEARD), Gate(HEARD_OF_ONE, ANSWERS)
    offer = Offer(Service.SYNC, node_id, instance, port)
    waiting = 0

    async def reply(raw: bytes, sender: Sender) -> None:
        nonlocal waiting
        await trio.sleep(rng.uniform(0, ANSWER_DELAY))
        waiting -= 1
        segments.answer(raw, sender)

    def question(raw: memoryview, sender: Sender) -> None:
        nonlocal waiting
        now = trio.current_time()
        if waiting >= MAX_WAITING or not heard.admits(sender[0], now):
            return
        if _is_for_sync(raw, Discover) and answers.admits(sender[0], now):
            answer = encode_offer(offer, len(raw))
            if answer:
                waiting += 1
                nursery.start_soon(reply, answer, sender)

    with Multicast(listening) as segments:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(segments.listen, question, _ignore)
            while True:
                await trio.sleep(LOOK_SECONDS)
                segments.look()


async def seek_sync(
    node_id: NodeId, instance: bytes, rng: Random, found: Callable[[NodeId, Address], None]
) -> None:
    """Ask until cancelled, and tell of every server that answers, once for each address.

    Raises EnvironmentFault without a socket.
    """
    known: set[tuple[NodeId, Address]] = set()
    heard = Gate(HEARD_OF_ONE, HEARD)

    def answer(raw: memoryview, sender: Sender) -> None:
        if not heard.admits(sender[0], trio.current_time()):
            return
        offer = _is_for_sync(raw, Offer)
        if isinstance(offer, Offer) and len(known) < MAX_SERVERS:
            server = offer.node_id, Address(sender[0], offer.port)
            if server not in known:
                known.add(server)
                found(*server)

    pause = FIRST_PAUSE
    question = encode_discover(Discover(Service.SYNC, node_id, instance))
    with Multicast() as segments:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(segments.listen, _ignore, answer)
            while True:
                segments.ask(question)
                await trio.sleep(pause * rng.uniform(0.75, 1.25))
                pause = min(2 * pause, MAX_PAUSE)
                segments.look()


def _is_for_sync(raw: memoryview, kind: type) -> Discover | Offer | None:
    try:
        message = decode(raw)
    except ProtocolError:
        return None
    return message if isinstance(message, kind) and message.service is Service.SYNC else None


def _ignore(raw: memoryview, sender: Sender) -> None:
    pass
