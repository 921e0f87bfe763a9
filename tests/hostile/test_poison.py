"""Peers that send wrong chunks: the file is exact, they are banned, and nobody else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from furymesh.core.ids import FileId, node_id_text
from furymesh.core.manifest import Manifest
from furymesh.storage.bans import BanStore
from furymesh.storage.manifests import ManifestStore
from tests.e2e.mesh import Mesh, finished, same, write_blob
from tests.hostile.crowd import Content, Dawdler, Vanisher, crowd, new_peer

PEERS = 10
UNAVAILABLE = 3  # exit code: no peer has it
STALL_SECONDS = 8.0  # for a whole download: twice the silence after which a peer is given up
CHUNK = 128 * 1024  # above the smallest window: a new peer owes one chunk at a time
CHUNKS = 160
SIZE = CHUNKS * CHUNK - 5000  # the last chunk is short
BAD_CHUNKS = 2  # at most, from each that never sent a good one
# From each that was honest before: what it owed when its first lie was found, which no
# ban calls back. This many are four mebibytes.
OWED_CHUNKS = 32
Record = Callable[[str, object], None]

HOW: dict[str, tuple[Callable[[int], bool], bool]] = {
    "one byte": (lambda chunk: True, False),
    "now and then": (lambda chunk: chunk % 3 == 0, False),
    "colluding": (lambda chunk: chunk >= 80, False),  # all of them lie about the same half
    "coming back": (lambda chunk: True, True),
}

LATER = ("now and then", "colluding")  # may send good chunks first


@dataclass(frozen=True, slots=True)
class Film:
    """What is downloaded."""

    path: Path
    link: str
    file_id: FileId
    manifest: Manifest


@pytest.fixture
def film(mesh: Mesh) -> Film:
    path = write_blob(mesh.root / "film.bin", SIZE, seed=1)
    shared = mesh.share("maker", path, chunk_size=CHUNK)
    manifest = ManifestStore(mesh.home("maker")).load(shared.file_id)
    assert manifest is not None
    return Film(path, shared.link.text, shared.file_id, manifest)


def poisoned(mesh: Mesh, film: Film, bad: int, how: str) -> int:
    """One download from PEERS of which `bad` poison; the number of bad chunks that were sent."""
    lie, returns = HOW[how]
    poisoners = [new_peer(Content(film.path, CHUNK, lie), returns=returns) for _ in range(bad)]
    honest = [new_peer(Content(film.path, CHUNK)) for _ in range(PEERS - bad)]
    everybody = [*poisoners, *honest]
    with crowd(film.manifest, everybody):
        user = mesh.start_get("user", film.link, peers=[peer.address for peer in everybody])
        complete = finished(user)
    assert same(Path(complete["path"]), film.path)
    found, problems = BanStore(mesh.home("user")).load()
    banned = {ban.node_id for ban in found}
    assert not problems
    assert not banned & {peer.node_id for peer in honest}, "an honest peer was banned"
    helped = {peer["node_id"] for peer in complete["peers"]}
    most = OWED_CHUNKS if how in LATER else BAD_CHUNKS
    for peer in poisoners:
        sent = peer.content.sent_bad
        assert len(sent) <= most, f"{len(sent)} bad chunks from one peer"
        assert how in LATER or node_id_text(peer.node_id) not in helped
        assert peer.node_id in banned or not sent
    bad_chunks = sum(len(peer.content.sent_bad) for peer in poisoners)
    # Nothing else comes in vain, but for good chunks that the endgame asks for twice.
    twice = sum(len(peer.content.sent_good) for peer in everybody) - CHUNKS
    assert complete["bytes_wasted"] <= (bad_chunks + twice) * CHUNK
    return bad_chunks


@pytest.mark.parametrize(("bad", "how"), [(5, "one byte"), (9, "coming back")])
def test_poisoners_are_banned_and_the_file_is_exact(
    mesh: Mesh, film: Film, bad: int, how: str
) -> None:
    assert poisoned(mesh, film, bad, how) > 0, "nobody was asked for anything"


def test_ban_holds_in_the_next_process(mesh: Mesh, film: Film) -> None:
    poisoner = new_peer(Content(film.path, CHUNK, lambda chunk: True))
    honest = new_peer(Content(film.path, CHUNK))
    with crowd(film.manifest, [poisoner, honest]):
        both = [poisoner.address, honest.address]
        complete = finished(mesh.start_get("user", film.link, peers=both))
        assert same(Path(complete["path"]), film.path)
        sent = len(poisoner.content.sent_bad)
        assert sent, "it was asked for nothing"
        options = ("--output", "again.bin", "--timeout", 1)
        again = mesh.start_get("user", film.link, *options, peers=[poisoner.address])
        assert again.done().code == UNAVAILABLE
        assert "banned" in again.err
        assert len(poisoner.content.sent_bad) == sent


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("bad", [1, 5, 9])
def test_any_number_of_poisoners_is_survived(
    mesh: Mesh, film: Film, bad: int, how: str, record_property: Record
) -> None:
    sent = poisoned(mesh, film, bad, how)
    record_property("row", 11)
    record_property("cases", bad)
    record_property("result", f"{bad} of {PEERS} liars ({how}): {sent} bad chunks, the file exact")


# --- peers that go away, stall or lie about what they have -----------------------------


@pytest.mark.promise(12)
@pytest.mark.parametrize("how", ["stalls", "vanishes", "lies"])
@pytest.mark.parametrize(
    "count", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 5, 9))]
)
def test_peers_that_end_in_the_middle_of_a_chunk_hold_nobody_up(
    mesh: Mesh, film: Film, count: int, how: str, record_property: Record
) -> None:
    gone = [new_peer(Content(film.path, CHUNK)) for _ in range(count)]
    for peer in gone:
        match how:
            case "stalls":
                peer.wrap = Dawdler
            case "vanishes":
                peer.wrap = Vanisher
            case "lies":
                peer.content.absent = True
    honest = new_peer(Content(film.path, CHUNK))
    with crowd(film.manifest, [*gone, honest]):
        peers = [peer.address for peer in (*gone, honest)]
        user = mesh.start_get("user", film.link, peers=peers)
        complete = finished(user)
    assert all(peer.content.asked for peer in gone), "one was asked for nothing"
    assert same(Path(complete["path"]), film.path)
    assert not BanStore(mesh.home("user")).load()[0], "nobody sent a wrong byte"
    assert complete["seconds"] < STALL_SECONDS
    record_property("cases", count)
    record_property("result", f"{how}: complete after {complete['seconds']:.1f} s")
