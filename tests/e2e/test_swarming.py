"""Several processes, one share: everybody gets it from everybody."""

from __future__ import annotations

from pathlib import Path

from furymesh.core.bitfield import mask_of
from furymesh.core.ids import parse_file_id
from tests.e2e.conftest import CHUNK, CHUNKS, SIZE, Seed
from tests.e2e.mesh import Mesh, finished, same, write_blob
from tests.e2e.parts import keep_part


def test_three_nodes_with_a_third_each_make_one_whole(mesh: Mesh, seed: Seed) -> None:
    file_id = parse_file_id(seed.file_id)
    fourth = mesh.call("fourth", "id", "--json").last["node_id"]
    thirds = {}
    for number in range(3):
        home = mesh.home(f"third{number}")
        chunks = range(number, CHUNKS, 3)
        keep_part(
            home,
            file_id,
            manifests=seed.node.home,
            source=seed.source,
            output=mesh.files(home) / "copy.bin",
            chunks=mask_of(chunks),
        )
        # They talk to the fourth only, so that none can pass on what another holds.
        node = mesh.node(home, "--allow", fourth)
        done = mesh.call(home, "get", seed.link, "--detach", "--output", "copy.bin")
        assert done.code == 0, done.err
        thirds[node.node_id] = (node.address, len(chunks))

    complete = mesh.get("fourth", seed.link, peers=[address for address, _ in thirds.values()])

    assert same(Path(complete["path"]), seed.source)
    assert complete["bytes_fetched"] == SIZE
    brought = {peer["node_id"]: peer["chunks"] for peer in complete["peers"]}
    assert brought == {node_id: chunks for node_id, (_, chunks) in thirds.items()}


def test_five_downloaders_take_less_than_two_copies_from_the_seed(mesh: Mesh) -> None:
    size = 200 * CHUNK * 4
    source = write_blob(mesh.root / "source.bin", size, seed=2)
    link = mesh.share("origin", source, chunk_size=4 * CHUNK).link.text
    # The uplink is what swarms are short of.
    origin = mesh.node("origin", "--max-upload", "8MiB")
    crowd = [
        mesh.start_get(f"user{number}", link, "--seed", peers=[origin.address])
        for number in range(5)
    ]
    results = [process.expect("complete") for process in crowd]

    from_origin = 0
    for result in results:
        assert same(Path(result["path"]), source)
        assert sum(peer["bytes"] for peer in result["peers"]) == size
        from_origin += sum(
            peer["bytes"] for peer in result["peers"] if peer["node_id"] == origin.node_id
        )
    assert size <= from_origin < 2 * size
    for process in crowd:
        process.process.terminate()
    assert [process.done().code for process in crowd] == [0] * 5


def test_peers_who_know_only_the_same_third_find_each_other(mesh: Mesh) -> None:
    """Peer exchange: both know one address, and still help each other."""
    size = 100 * CHUNK
    source = write_blob(mesh.root / "source.bin", size, seed=3)
    link = mesh.share("origin", source, chunk_size=CHUNK).link.text
    origin = mesh.node("origin", "--max-upload", "500K")
    first = mesh.start_get("first", link, "--seed", peers=[origin.address])
    second = mesh.start_get("second", link, "--seed", peers=[origin.address])
    one, other = first.expect("complete"), second.expect("complete")
    for result in (one, other):
        assert same(Path(result["path"]), source)
        assert len(result["peers"]) == 2, "the two did not find each other"
    assert one["bytes_wasted"] + other["bytes_wasted"] <= size // 10


def test_a_downloader_serves_what_it_has(mesh: Mesh, seed: Seed) -> None:
    """The only source of the second is the first, while the first still downloads."""
    home = mesh.home("middle")
    middle = mesh.node(home, "--max-download", "1M")
    done = mesh.call(home, "get", seed.link, "--detach", "--peer", seed.address, "--output", "a")
    assert done.code == 0, done.err
    complete = mesh.get("last", seed.link, "--output", "b", peers=[middle.address])
    assert same(Path(complete["path"]), seed.source)
    # The first also introduces the seed, so how much comes from which is chance.
    brought = {peer["node_id"]: peer["bytes"] for peer in complete["peers"]}
    assert brought[middle.node_id] > 0


def test_several_downloads_share_one_link(mesh: Mesh, seed: Seed) -> None:
    home = mesh.home("both")
    node = mesh.node(home)
    for link, name in ((seed.link, "one"), (seed.sealed["link"], "two")):
        done = mesh.call(home, "get", link, "--detach", "--peer", seed.address, "--output", name)
        assert done.code == 0, done.err
    for name in ("one", "two"):
        node.process.expect_err(f"finished {mesh.files(home) / name}")
        assert same(mesh.files(home) / name, seed.source)


def test_seed_of_a_finished_download_serves_it(mesh: Mesh, seed: Seed) -> None:
    first = mesh.start_get("first", seed.link, "--seed", "--output", "a", peers=[seed.address])
    first.expect("complete")
    listed = mesh.call("first", "list", "--json")
    assert listed.last["file_id"] == seed.file_id
    assert first.stop().code == 0
    # What was downloaded stays shared: a node serves it from then on.
    node = mesh.node("first")
    second = finished(mesh.start_get("second", seed.link, "--output", "b", peers=[node.address]))
    assert [peer["node_id"] for peer in second["peers"]] == [node.node_id]
    assert same(Path(second["path"]), seed.source)
