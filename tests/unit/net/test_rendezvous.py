"""Who is told of whom at a relay, by what it says to ends that are spoken by hand."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from furymesh.net import relay as relay_module
from furymesh.net import rendezvous
from furymesh.net.addresses import unpacked_ip
from furymesh.net.identity import Identity
from furymesh.net.relay import RENDEZVOUS
from furymesh.wire import messages as m
from tests.unit.net.relay_lab import OTHER, TAG, Guest, refused, relay_of
from tests.waiting import stays, until


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


async def test_nobody_takes_all_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_HOSTED_PER_NODE", 1)
    monkeypatch.setattr(relay_module, "MAX_HOSTED", 2)
    async with relay_of() as place:
        identity = Identity(Ed25519PrivateKey.generate())
        await place.guest(identity).come()
        link = await place.guest(identity).dial(RENDEZVOUS)
        assert await refused(link) is m.Reason.BUSY
        await place.guest().come()
        link = await place.guest().dial(RENDEZVOUS)
        assert await refused(link) is m.Reason.BUSY
        assert place.relay.hosted == 2


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
        for number in range(4 * rendezvous.NAMED_BY_ONE):
            one.name(bytes([number]) * 32)
        await until(lambda: one.link is not None and one.link.farewell is m.Reason.BUSY)


# --- limits of a machine ----------------------------------------------------------------


@pytest.mark.usefixtures("addresses_tell")
async def test_a_full_house_makes_way_for_who_has_fewer_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "MAX_HOSTED", 3)
    async with relay_of() as place:
        crowd = [place.guest() for _ in range(3)]
        for guest in crowd:
            await guest.come(TAG)
        other = place.guest(source="127.0.0.2")
        other.link = await other.dial(RENDEZVOUS)
        place.tasks.start_soon(other.link.run, other)
        latest = crowd[-1].link
        await until(lambda: latest is not None and latest.farewell is m.Reason.BUSY)
        other.name(TAG)
        await told(other, 2)
        for source in ("127.0.0.1", "127.0.0.2"):
            link = await place.guest(source=source).dial(RENDEZVOUS)
            assert await refused(link) is m.Reason.BUSY


def tags(first: int, count: int) -> list[bytes]:
    return [bytes([number]) * 32 for number in range(first, first + count)]


async def told(guest: Guest, count: int) -> None:
    """Wait until a guest was introduced to so many, and see that it is to no more."""
    await until(lambda: len(guest.heard(m.Introduction)) >= count)
    await stays(lambda: len(guest.heard(m.Introduction)) == count, 0.1)


@pytest.mark.usefixtures("addresses_tell")
@pytest.mark.parametrize("limit", ["MAX_TAGGED_PER_MACHINE", "MAX_TAGGED"])
async def test_all_nodes_of_a_machine_together_get_the_tags_of_one(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, limit, 6)
    async with relay_of() as place:
        for first in (0, 4):
            await place.guest().come(*tags(first, 4))
        for first, source, kept in ((0, "127.0.0.2", 4), (4, "127.0.0.3", 2)):
            other = place.guest(source=source)
            await other.come(*tags(first, 4))
            await told(other, kept if limit == "MAX_TAGGED_PER_MACHINE" else 0)


@pytest.mark.usefixtures("addresses_tell")
async def test_tags_that_are_there_stay_when_more_are_named_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "MAX_TAGGED_PER_MACHINE", 3)
    async with relay_of() as place:
        one, two = place.guest(), place.guest(source="127.0.0.2")
        await one.come(*tags(5, 2))
        one.name(*tags(0, 7))
        await until(lambda: len(place.relay._rendezvous._tagged) == 3)
        await two.come(*tags(5, 2))
        await until(lambda: len(two.heard(m.Introduction)) == 2)


@pytest.mark.usefixtures("addresses_tell")
async def test_nodes_of_one_machine_leave_others_their_turn_to_name_tags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "NAMED_BY_ONE", 2)
    async with relay_of() as place:
        quiet, *crowd = (place.guest() for _ in range(3))
        for guest in (quiet, *crowd):
            await guest.come(TAG)
        for guest in 3 * crowd:
            guest.name(OTHER)
        links = [guest.link for guest in crowd if guest.link]
        await until(lambda: any(link.farewell is m.Reason.BUSY for link in links))
        other = place.guest(source="127.0.0.2")
        await other.come(TAG)
        await until(lambda: other.heard(m.Introduction))


@pytest.mark.usefixtures("addresses_tell")
async def test_all_nodes_of_a_machine_together_get_the_introductions_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "INTRODUCED_TO_ONE", 2)
    async with relay_of() as place:
        for number in range(2, 5):
            await place.guest(source=f"127.0.0.{number}").come(TAG)
        one, two = place.guest(), place.guest()
        await one.come(TAG)
        await told(one, 3)
        await two.come(TAG)
        await until(lambda: two.heard(m.Introduction))
        other = place.guest(source="127.0.0.9")
        await other.come(TAG)
        await until(lambda: len(other.heard(m.Introduction)) >= 4)
        assert len(two.heard(m.Introduction)) < 4
