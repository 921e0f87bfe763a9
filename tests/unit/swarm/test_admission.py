"""Which links a node keeps: who is let in, who makes way, who is banned."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from furymesh.net import secure_link
from furymesh.swarm import admission as admission_module
from furymesh.swarm import swarm as swarm_module
from furymesh.swarm.bans import MAX_BANNED_HERE
from furymesh.wire import messages as m
from tests.unit.swarm.lab import Deaf, blob, lab, manifest_of, member, only_link, peer_of, wanting
from tests.waiting import until


async def test_two_dials_leave_one_link(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        first = await one.dial(two)
        await until(lambda: one.swarm.links and two.swarm.links)
        again = await two.dial(one)
        await until(lambda: first.closed_because or again.closed_because)
        await trio.testing.wait_all_tasks_blocked(0.02)  # the other would have ended by then
        assert len(one.swarm.links) == len(two.swarm.links) == 1
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


async def test_link_that_answers_stays_when_its_end_dials_again(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        first = await two.dial(one)
        await until(lambda: one.swarm.links and two.swarm.links)
        again = await two.dial(one)
        await until(lambda: again.closed_because)
        assert first.closed_because is None
        assert only_link(two.swarm) is first


async def test_dead_link_makes_way_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "PROBE_SECONDS", 0.1)
    async with lab(tmp_path, "one", "two") as (one, two):
        silent = await two.swarm.endpoint.dial(one.address)  # nobody runs it
        await until(lambda: one.swarm.links)
        dead = only_link(one.swarm)
        link = await two.dial(one)
        await until(lambda: dead.closed_because and one.swarm.links)
        assert only_link(one.swarm) is not dead
        assert dead.farewell is None
        here = one.serve(blob(3))
        there = await wanting(two, blob(3))
        await until(lambda: here.members and there.members)  # the new one serves
        assert link.closed_because is None
        assert len(one.swarm.links) == 1
        silent.close()


async def test_dead_link_that_would_be_preferred_makes_way_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "PROBE_SECONDS", 0.1)
    async with lab(tmp_path, "one", "two") as peers:
        smaller, larger = sorted(peers, key=lambda peer: peer.swarm.endpoint.process)
        silent = await smaller.swarm.endpoint.dial(larger.address)  # nobody runs it
        await until(lambda: larger.swarm.links)
        dead = only_link(larger.swarm)
        link = await larger.dial(smaller)
        await until(lambda: dead.closed_because and only_link(larger.swarm) is link)
        assert link.closed_because is None
        assert only_link(smaller.swarm).closed_because is None
        silent.close()


async def test_one_node_does_not_take_all_places(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        links = []
        for number in range(admission_module.MAX_PER_NODE + 1):
            two.swarm.endpoint.instance = bytes([number]) * 8
            links.append(await two.swarm.endpoint.dial(one.address))
            two.links.start_soon(links[-1].run, Deaf(manifest_of(blob(3)).file_id))
        await until(lambda: links[-1].closed_because)
        assert links[-1].farewell is m.Reason.BUSY
        assert len(one.swarm.links) == admission_module.MAX_PER_NODE
        await three.dial(one)
        await until(lambda: len(one.swarm.links) == admission_module.MAX_PER_NODE + 1)


async def test_full_node_still_dials(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        one.swarm.admission.max_links = 1
        await member(one, two)
        turned_away = await three.dial(one)
        await until(lambda: turned_away.closed_because)
        assert turned_away.farewell is m.Reason.BUSY
        await one.dial(three)
        await until(lambda: len(one.swarm.links) == 2)


async def test_stranger_makes_way_for_a_newcomer_and_a_member_does_not(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three", "four", "five") as (one, two, *strangers):
        one.swarm.admission.max_links = 3
        used = await member(one, two)
        links = []
        for peer in strangers:
            links.append(await peer.dial(one))
            await until(lambda: peer_of(one, links[-1]))
        await until(lambda: links[0].closed_because)
        assert used.closed_because is None
        assert [link.closed_because for link in links[1:]] == [None, None]
        await until(lambda: len(one.swarm.links) == 3)


@pytest.fixture
def one_place_per_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_PER_MACHINE", 1)
    monkeypatch.setattr(secure_link, "is_loopback", lambda host: False)


@pytest.mark.usefixtures("one_place_per_machine")
async def test_stranger_makes_way_on_its_own_machine(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        old = await two.dial(one)
        await until(lambda: one.swarm.links)
        new = await three.dial(one)
        await until(lambda: old.closed_because and peer_of(one, new))
        assert new.closed_because is None


async def test_known_nodes_find_a_place_in_a_full_house(tmp_path: Path) -> None:
    names = ("one", "known", *(f"m{number}" for number in range(8)), "allowed", "unknown")
    async with lab(tmp_path, *names) as (one, known, *members, allowed, unknown):
        one.swarm.admission.max_links = 9
        left = await member(one, known)
        left.close()
        await until(lambda: not one.swarm.links)
        for peer in members:
            await member(one, peer)
        late = await unknown.dial(one)
        await until(lambda: late.closed_because)
        assert late.farewell is m.Reason.BUSY
        again = await known.dial(one)
        await until(lambda: peer_of(one, again))
        again.close()
        await until(lambda: len(one.swarm.links) == len(members))
        one.swarm.endpoint.allow = frozenset({allowed.swarm.endpoint.identity.node_id})
        listed = await allowed.dial(one)
        await until(lambda: peer_of(one, listed))


@pytest.mark.usefixtures("one_place_per_machine")
async def test_one_machine_does_not_take_all_places(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        await member(one, two)
        refused = await three.dial(one)
        await until(lambda: refused.closed_because)
        assert refused.farewell is m.Reason.BUSY


async def test_link_without_a_share_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_module, "UNUSED_SECONDS", 0.1)
    monkeypatch.setattr(swarm_module, "WATCH_SECONDS", 0.02)
    data = blob(3)
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        here = one.serve(data)
        used = await two.dial(one)
        await until(lambda: two.swarm.links)
        await wanting(two, data)
        await until(lambda: here.members)
        idle = await three.dial(one)
        await until(lambda: idle.closed_because)
        assert "no share in common" in str(idle.closed_because)
        assert used.closed_because is None


async def test_refused_link_has_no_say(tmp_path: Path) -> None:
    """What it asks for is not answered while it is being turned away."""
    data = blob(3)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        one.swarm.admission.bans.add(two.swarm.endpoint.identity.node_id, "")
        link = await two.dial(one)
        link.send(link.session.join(here.file_id))
        await until(lambda: link.closed_because)
        assert link.farewell is m.Reason.FORBIDDEN
        assert not here.members


async def test_quarantined_link_is_out_of_its_shares_at_once(tmp_path: Path) -> None:
    data = blob(3)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, data)
        await until(lambda: here.members and there.members)
        one.swarm.quarantine(only_link(one.swarm))
        assert not here.members
        await until(lambda: not one.swarm.links and not two.swarm.links)


async def test_quarantined_link_gets_no_slot_for_what_it_had_queued(tmp_path: Path) -> None:
    data = blob(240)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        link = await two.swarm.endpoint.dial(one.address)
        two.links.start_soon(link.run, Deaf(here.file_id))
        link.send(link.session.join(here.file_id))
        await until(lambda: here.members and link.session.live(here.file_id))
        link.send(m.Request(link.session.number(here.file_id), tuple(range(240))))
        await until(lambda: one.swarm.uploads.active and one.swarm.uploads.queued)
        one.swarm.quarantine(only_link(one.swarm))
        assert not one.swarm.uploads.active


async def test_second_bad_node_bans_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure_link, "is_loopback", lambda host: False)
    async with lab(tmp_path, "one", "two", "three", "four") as (one, *others):
        for number, peer in enumerate(others):
            link = await peer.dial(one)
            if number < MAX_BANNED_HERE:
                await until(lambda: one.swarm.links)
                one.swarm.quarantine(only_link(one.swarm))
            await until(lambda link=link: link.closed_because)  # type: ignore[misc]
            await until(lambda: not one.swarm.links)
        assert link.farewell is m.Reason.FORBIDDEN
