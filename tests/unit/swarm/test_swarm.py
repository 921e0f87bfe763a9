from __future__ import annotations

from pathlib import Path

import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import ProtocolError
from furymesh.net.secure_link import SecureLink
from furymesh.swarm import swarm as swarm_module
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from furymesh.wire import messages as m
from tests.unit.swarm.lab import CHUNK, Memory, Peer, blob, lab, manifest_of, until


def only_link(swarm: Swarm) -> SecureLink:
    (link,) = swarm.links.values()
    return link


async def wanting(peer: Peer, data: bytes) -> Share:
    """A share that this peer knows of and holds nothing of, joined on every link."""
    manifest = manifest_of(data)
    share = Share(peer.swarm, manifest.file_id)
    peer.swarm.add(share)
    share.serve(manifest, 0, None)
    for link in list(peer.swarm.links.values()):
        peer.swarm.join(link, share)
    return share


async def test_share_is_live_when_both_ends_have_joined(tmp_path: Path) -> None:
    data = blob(3)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        link = await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, data)
        await until(lambda: here.members and there.members)
        await until(lambda: there.members[link].have == 0b111)


async def test_join_without_the_share_is_refused_and_answered_when_it_comes(
    tmp_path: Path,
) -> None:
    data = blob(3)
    async with lab(tmp_path, "one", "two") as (one, two):
        link = await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, data)
        await until(lambda: not link.session.joined(there.file_id))
        assert not there.members
        here = one.serve(data)
        await until(lambda: here.members and there.members)


async def test_who_cannot_prove_the_id_is_not_told_when_the_share_comes(tmp_path: Path) -> None:
    data = blob(3)
    async with lab(tmp_path, "one", "two") as (one, two):
        link = await two.dial(one)
        await until(lambda: one.swarm.links and two.swarm.links)
        join = link.session.join(manifest_of(data).file_id)
        link.send(m.Join(join.share, join.tag, bytes(32)))
        await until(lambda: not link.session.joined(manifest_of(data).file_id))
        share = one.serve(data)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not share.members
        assert not only_link(one.swarm).session.joined(share.file_id)


async def test_guessing_ends_the_link(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        link = await two.dial(one)
        await until(lambda: one.swarm.links)
        served = only_link(one.swarm)
        for number in range(swarm_module.MAX_REFUSALS + 1):
            link.send(m.Join(number + 1, bytes([number % 256]) * 32, bytes(32)))
        await until(lambda: not one.swarm.links)
        assert isinstance(served.closed_because, ProtocolError)


async def test_leaving_in_the_middle_of_a_chunk_harms_nobody(tmp_path: Path) -> None:
    """The sender must forget the chunk, and the link must stay good for others."""
    data = blob(40)
    other = blob(2, seed=2)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        one.serve(other)
        link = await two.dial(one)
        await until(lambda: one.swarm.links and two.swarm.links)
        there = await wanting(two, data)
        await until(lambda: there.members and here.members)
        served = only_link(one.swarm)
        one.swarm.uploads.request(0.0, here.file_id, served, 5)
        one.swarm.dispatch()  # a slot is taken, and the writer has not run yet
        message = link.session.leave(there.file_id, m.Reason.DONE)
        link.send(message)
        one.swarm.message(served, served.session.received(_encoded(message)))
        assert one.swarm.piece(served, CHUNK) is None
        assert one.swarm.uploads.active == 0
        del two.swarm.shares[there.file_id]


async def test_two_dials_leave_one_link(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        await one.dial(two)
        await until(lambda: one.swarm.links and two.swarm.links)
        await two.dial(one)
        await until(lambda: len(one.swarm.links) == len(two.swarm.links) == 1)
        await trio.testing.wait_all_tasks_blocked(0.02)
        mine, theirs = only_link(one.swarm), only_link(two.swarm)
        assert mine.initiator != theirs.initiator
        assert mine.session is not theirs.session


async def test_quarantine_ends_links_and_refuses_new_ones(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        await two.dial(one)
        await until(lambda: one.swarm.links)
        one.swarm.quarantine(only_link(one.swarm))
        await until(lambda: not one.swarm.links)
        again = await two.dial(one)
        await until(lambda: again.closed_because)
        assert not one.swarm.links


async def test_unreadable_chunk_is_withdrawn(tmp_path: Path) -> None:
    data = blob(4)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        link = await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, data)
        await until(lambda: there.members and there.members[link].have == 0b1111)
        here.withdraw(mask_of([2]))
        await until(lambda: there.members[link].have == 0b1011)
        assert here.have == 0b1011


async def test_removed_share_is_left_on_every_link(tmp_path: Path) -> None:
    data = blob(4)
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        here = one.serve(data)
        source = here.source
        others = []
        for peer in (two, three):
            await peer.dial(one)
            await until(lambda peer=peer: peer.swarm.links)  # type: ignore[misc]
            others.append(await wanting(peer, data))
        await until(lambda: len(here.members) == 2)
        one.swarm.remove(here.file_id)
        assert isinstance(source, Memory)
        assert source.closed
        await until(lambda: not any(other.members for other in others))
        assert len(one.swarm.links) == 2


def _encoded(message: m.Message) -> bytes:
    from furymesh.wire import codec

    return codec.encode(message)
