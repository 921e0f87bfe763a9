from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import FuryMeshError, IllegalStateError, ProtocolError, SourceChangedError
from furymesh.core.geometry import PAGE_SIZE
from furymesh.core.ids import discovery_tag
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.net.secure_link import SecureLink
from furymesh.net.writing import MAX_ANSWER_BYTES
from furymesh.swarm.download import Terms
from furymesh.swarm.joining import MAX_REFUSALS
from furymesh.swarm.share import Share
from furymesh.wire import messages as m
from furymesh.wire import session as session_module
from tests.unit.swarm.lab import CHUNK, Deaf, Memory, blob, lab, manifest_of, only_link, wanting
from tests.waiting import stays, until


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
        await trio.testing.wait_all_tasks_blocked(0.02)  # it would have been told by then
        assert not share.members
        assert not only_link(one.swarm).session.joined(share.file_id)


async def test_refusal_takes_the_same_work_whether_the_share_is_here_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[str] = []

    def counting(name: str, function: Callable[..., bytes]) -> None:
        def wrapper(*args: Any, **options: Any) -> bytes:
            work.append(name)
            return function(*args, **options)

        monkeypatch.setattr(session_module, name, wrapper)

    async with lab(tmp_path, "one", "two") as (one, two):
        share = one.serve(blob(3))
        link = await two.dial(one)
        await until(lambda: one.swarm.links and two.swarm.links)
        answers: list[m.Message] = []
        monkeypatch.setattr(link.session, "refused", answers.append)
        monkeypatch.setattr(link.session, "_next_number", 9)  # as if it had asked itself
        tag = discovery_tag(share.file_id)
        for name in ("access_proof", "discovery_tag"):
            counting(name, getattr(session_module, name))
        done = []
        for number, guessed in enumerate((tag, bytes(32), b"x" * 32, tag), start=1):
            work.clear()
            link.send(m.Join(number, guessed, b"p" * 32))
            await until(lambda number=number: len(answers) == number)  # type: ignore[misc]
            done.append(list(work))
        assert done == [["access_proof"]] * 4
        assert answers == [m.Refuse(n, m.Reason.NOT_FOUND) for n in (1, 2, 3, 4)]


async def test_guessing_ends_the_link(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two") as (one, two):
        link = await two.dial(one)
        await until(lambda: one.swarm.links)
        served = only_link(one.swarm)
        for number in range(MAX_REFUSALS + 1):
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


async def test_removed_share_is_left_on_a_link_too_that_another_has_replaced(
    tmp_path: Path,
) -> None:
    """Its last word is not out yet, because the other end does not read."""
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(DATA, range(200))
        links = [await two.swarm.endpoint.dial(one.address)]
        two.links.start_soon(links[0].run, Deaf(FILE_ID))
        links[0].send(links[0].session.join(FILE_ID))
        await until(lambda: here.members and links[0].session.live(FILE_ID))
        replaced = only_link(one.swarm)
        links[0].send(m.Request(links[0].session.number(FILE_ID), tuple(range(200))))
        await until(lambda: replaced.refused_for() > 0.05)
        replaced.relayed = True  # so that another one is preferred
        links.append(await two.swarm.endpoint.dial(one.address))
        two.links.start_soon(links[1].run, Deaf(FILE_ID))
        await until(lambda: only_link(one.swarm) is not replaced)
        assert replaced in here.members
        here.gained([200])
        one.swarm.remove(FILE_ID)
        assert not here.members
        await until(lambda: replaced.closed_because)
        assert not one.swarm.news._untold


async def test_share_is_added_once(tmp_path: Path) -> None:
    async with lab(tmp_path, "one") as (one,):
        one.serve(blob(2))
        with pytest.raises(IllegalStateError):
            one.serve(blob(2))


DATA = blob(240)
FILE_ID = manifest_of(DATA).file_id


async def test_who_does_not_read_holds_no_slot_and_keeps_its_place_in_the_queue(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        here = one.serve(DATA)
        link = await two.swarm.endpoint.dial(one.address)
        deaf = Deaf(FILE_ID)
        two.links.start_soon(link.run, deaf)
        link.send(link.session.join(FILE_ID))
        await until(lambda: here.members and link.session.live(FILE_ID))
        link.send(m.Request(link.session.number(FILE_ID), tuple(range(240))))
        served = only_link(one.swarm)
        await until(lambda: served.refused_for() > 0.05)
        await until(lambda: one.swarm.uploads.active == 0)
        assert 0 < one.swarm.uploads.queued < 240
        result = await three.download(DATA, one).run(three.links)
        assert result.path.read_bytes() == DATA
        assert served.closed_because is None
        deaf.hears.set()
        await until(lambda: not one.swarm.uploads.queued and not one.swarm.uploads.active)


async def test_flood_of_questions_about_a_manifest_costs_one_answer_of_memory(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        here = one.serve(DATA)
        link = await two.swarm.endpoint.dial(one.address)
        two.links.start_soon(link.run, Deaf(FILE_ID))
        link.send(link.session.join(FILE_ID))
        await until(lambda: here.members and link.session.live(FILE_ID))
        served, number = only_link(one.swarm), link.session.number(FILE_ID)
        link.send(m.Request(number, tuple(range(240))))
        await until(lambda: served.refused_for() > 0.05)
        for _ in range(1000):
            link.send(m.GetManifest(number, True, (0,) * 32))
            if not link._writer.idle:
                await trio.lowlevel.checkpoint()
        await until(lambda: link._writer.idle)
        link.send(m.Request(number, (10**6,)))  # no such chunk: all before it was read
        await until(lambda: served.closed_because)
        assert isinstance(served.closed_because, ProtocolError)
        assert served._writer._control_bytes < 2 * PAGE_SIZE
        result = await three.download(DATA, one).run(three.links)
        assert result.path.read_bytes() == DATA


@dataclass
class Canceller(Deaf):
    """One that counts what it is told not to expect."""

    rejected: int = 0

    def message(self, link: SecureLink, message: m.Message) -> None:
        super().message(link, message)
        self.rejected += isinstance(message, m.Reject)


async def test_who_asks_and_takes_no_answers_is_not_heard_until_it_does(tmp_path: Path) -> None:
    asked = 5000
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(DATA)
        link = await two.swarm.endpoint.dial(one.address)
        two.links.start_soon(link.run, deaf := Canceller(FILE_ID))
        link.send(link.session.join(FILE_ID))
        await until(lambda: here.members and link.session.live(FILE_ID))
        served, number = only_link(one.swarm), link.session.number(FILE_ID)
        link.send(m.Request(number, tuple(range(240))))
        await until(lambda: served.refused_for() > 0.05)
        for _ in range(asked):
            link.send(m.Cancel(number, (239,)))
        await until(lambda: served.owes_answers)
        await stays(lambda: served._writer._control_bytes < 2 * MAX_ANSWER_BYTES, 0.2)
        assert served.closed_because is None
        deaf.hears.set()
        await until(lambda: deaf.rejected == asked)


class Moved(Memory):
    """Content that was closed because it is elsewhere now; every read finds that out late."""

    def __init__(self, data: bytes, then: Callable[[], None]) -> None:
        super().__init__(data)
        self._then = then

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        return False

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        trio.from_thread.run_sync(self._then)
        raise SourceChangedError("it is gone")


async def test_chunk_whose_content_moves_while_it_is_read_is_sent_from_there(
    tmp_path: Path,
) -> None:
    data = blob(6)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        here.source = Moved(data, lambda: setattr(here, "source", Memory(data)))
        result = await two.download(data, one).run(two.links)
        assert result.path.read_bytes() == data
        assert here.have == 0b111111


async def test_share_that_goes_while_it_is_read_harms_nobody(tmp_path: Path) -> None:
    data = blob(6)
    async with lab(tmp_path, "one", "two") as (one, two):
        here = one.serve(data)
        reports: list[str] = []
        one.swarm.report = reports.append
        here.source = Moved(data, lambda: one.swarm.remove(here.file_id))
        link = await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, data)
        await until(lambda: there.members)
        link.send(m.Request(link.session.number(there.file_id), (1,)))
        await until(lambda: not one.swarm.shares)
        await until(lambda: not there.members)
        await trio.testing.wait_all_tasks_blocked(0.02)  # the link would have ended by then
        assert link.closed_because is None
        assert reports == []
        assert one.swarm.uploads.active == 0


async def test_hearsay_names_no_node_and_nothing_at_the_tellers_machine(tmp_path: Path) -> None:
    data = blob(2)
    async with lab(tmp_path, "one", "two") as (one, two):
        link = await two.dial(one)
        await until(lambda: two.swarm.links)
        there = await wanting(two, data)
        fetcher: Any = object()  # that there is one is enough
        there.fetcher = fetcher
        liar = b"n" * 32
        link.remote = ("192.0.2.1", 7000)
        told = [(b"\x7f\0\0\1", liar), (b"\0\0\0\0", b""), (b"\xc0\0\2\2", liar)]
        peers = [m.PeerAddress(ip, 7001, node_id) for ip, node_id in told]
        two.swarm.learnt(there, link, peers)
        there.fetcher = None
        (candidate,) = two.swarm.book.candidates(there.file_id)
        assert candidate.address == Address("192.0.2.2", 7001)


def _encoded(message: m.Message) -> bytes:
    from furymesh.wire import codec

    return codec.encode(message)


async def test_sources_of_peers_hear_of_what_is_shared_but_never_of_what_is_private(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, "one") as (one,):
        one.swarm.interests.port = 1
        share = one.serve(blob(3))
        hidden = Share(one.swarm, manifest_of(blob(2)).file_id, private=True)
        one.swarm.add(hidden)
        tag = discovery_tag(share.file_id)
        assert one.swarm.interests.announced == {tag}
        assert one.swarm.interests.wanted == set()
        share.private = True
        one.swarm.advertise(share)
        assert one.swarm.interests.announced == set()
        share.private = False
        one.swarm.advertise(share)
        assert one.swarm.interests.announced == {tag}
        one.swarm.remove(share.file_id)
        one.swarm.remove(hidden.file_id)
        assert one.swarm.interests.announced == set()


async def test_sources_of_peers_may_ask_of_a_share_that_has_just_gone(tmp_path: Path) -> None:
    """They are told that it has, but may come to ask first."""
    async with lab(tmp_path, "one", "two") as (one, two):
        here, peers = one.serve(blob(3)), one.swarm.interests.peers
        tag = discovery_tag(here.file_id)
        await two.dial(one)
        await until(lambda: two.swarm.links)
        await wanting(two, blob(3))
        await until(lambda: peers(tag) == 1)
        one.swarm.remove(here.file_id)
        assert peers(tag) == 0


async def test_a_share_is_wanted_until_it_is_here(tmp_path: Path) -> None:
    data = blob(3)
    tag = discovery_tag(manifest_of(data).file_id)
    async with lab(tmp_path, "seed", "user") as (seed, user):
        seed.serve(data)
        interests = user.swarm.interests
        interests.port = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(user.download(data).run, user.links)
            await until(lambda: interests.wanted == {tag})
            user.swarm.book.add(manifest_of(data).file_id, seed.address, Source.LAN)
        assert interests.wanted == set()
        assert interests.announced == {tag}


async def test_a_download_that_failed_is_wanted_no_more(tmp_path: Path) -> None:
    data = blob(3)
    async with lab(tmp_path, "user") as (user,):
        with pytest.raises(FuryMeshError):
            await user.download(data, terms=Terms(timeout=0.1)).run(user.links)
        assert user.swarm.interests.wanted == set()
