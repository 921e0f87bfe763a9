from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.errors import (
    FuryMeshError,
    IllegalStateError,
    ProtocolError,
    SourceChangedError,
)
from furymesh.core.ids import discovery_tag
from furymesh.core.link import Address
from furymesh.discovery.book import Source
from furymesh.net.handler import Piece
from furymesh.net.secure_link import SecureLink
from furymesh.net.stream import TcpStream
from furymesh.swarm import admission as admission_module
from furymesh.swarm import swarm as swarm_module
from furymesh.swarm.bans import MAX_BANNED_HERE
from furymesh.swarm.download import Terms
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from furymesh.wire import messages as m
from furymesh.wire import session as session_module
from tests.unit.swarm.lab import CHUNK, Memory, Peer, blob, lab, manifest_of
from tests.waiting import until


def only_link(swarm: Swarm) -> SecureLink:
    (link,) = swarm.links.values()
    return link


def peer_of(peer: Peer, link: SecureLink) -> bool:
    """Whether a node has the other end of this link."""
    return any(other.remote[1] == _port(link) for other in peer.swarm.links.values())


def _port(link: SecureLink) -> int:
    stream = link._stream
    assert isinstance(stream, TcpStream)
    return int(stream._socket.getsockname()[1]) if stream._socket.fileno() >= 0 else 0


async def member(one: Peer, other: Peer) -> SecureLink:
    """A link from another peer on which a share is live."""
    data = blob(3)
    here = one.swarm.shares.get(manifest_of(data).file_id) or one.serve(data)
    members = len(here.members)
    link = await other.dial(one)
    await until(lambda: other.swarm.links)
    if manifest_of(data).file_id not in other.swarm.shares:
        await wanting(other, data)
    await until(lambda: len(here.members) > members)
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


async def test_share_is_added_once(tmp_path: Path) -> None:
    async with lab(tmp_path, "one") as (one,):
        one.serve(blob(2))
        with pytest.raises(IllegalStateError):
            one.serve(blob(2))


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


async def test_one_node_does_not_take_all_places(tmp_path: Path) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        links = []
        for number in range(admission_module.MAX_PER_NODE + 1):
            two.swarm.endpoint.instance = bytes([number]) * 8
            links.append(await two.swarm.endpoint.dial(one.address))
            two.links.start_soon(links[-1].run, Deaf())
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


async def test_stranger_makes_way_on_its_own_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "MAX_PER_MACHINE", 1)
    monkeypatch.setattr(admission_module, "is_loopback", lambda host: False)
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


async def test_one_machine_does_not_take_all_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "MAX_PER_MACHINE", 1)
    monkeypatch.setattr(admission_module, "is_loopback", lambda host: False)
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


async def test_second_bad_node_bans_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "is_loopback", lambda host: False)
    async with lab(tmp_path, "one", "two", "three", "four") as (one, *others):
        for number, peer in enumerate(others):
            link = await peer.dial(one)
            if number < MAX_BANNED_HERE:
                await until(lambda: one.swarm.links)
                one.swarm.quarantine(only_link(one.swarm))
            await until(lambda link=link: link.closed_because)  # type: ignore[misc]
            await until(lambda: not one.swarm.links)
        assert link.farewell is m.Reason.FORBIDDEN


class Deaf:
    """Joins what it is told of, and at the first chunk reads nothing more until it hears again."""

    def __init__(self) -> None:
        self.hears = trio.Event()

    def message(self, link: SecureLink, message: m.Message) -> None:
        if isinstance(message, m.Join):
            link.session.accept(message, FILE_ID)

    def sink(self, link: SecureLink, data: m.Data) -> memoryview | None:
        return memoryview(bytearray(data.length)) if self.hears.is_set() else None

    async def room(self, link: SecureLink, data: m.Data) -> None:
        await self.hears.wait()

    def filled(self, link: SecureLink, data: m.Data) -> None:
        """Nothing is."""

    def departing(self, link: SecureLink) -> None:
        """Nothing to add."""

    def piece(self, link: SecureLink, room: int) -> Piece | None:
        return None

    def unreadable(self, link: SecureLink, piece: Piece, error: FuryMeshError) -> None:
        """Nothing is read."""


DATA = blob(240)
FILE_ID = manifest_of(DATA).file_id


async def test_who_does_not_read_holds_no_slot_and_keeps_its_place_in_the_queue(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, "one", "two", "three") as (one, two, three):
        here = one.serve(DATA)
        link = await two.swarm.endpoint.dial(one.address)
        deaf = Deaf()
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
