"""SIGKILL at every disk call of a small download, and at random moments of a large one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from furymesh.core.geometry import Geometry
from furymesh.core.ids import FileId
from tests.e2e.mesh import Mesh, write_blob
from tests.e2e.parts import keep_part
from tests.faults.disk import (
    SEED,
    Calls,
    Commands,
    Origin,
    Outcome,
    User,
    check_finished,
)
from tests.reliability import Record

CHUNK = 16 * 1024
KILL_AT = Calls.WRITE | Calls.SYNC | Calls.RENAME
SAMPLE = 8  # kill points of the short form
LARGE = 64 * 1024 * 1024
LARGE_CHUNK = 64 * 1024
LARGE_RATE = "40M"  # bytes a second, so that a download lasts longer than the pauses
LONGEST = 0.16  # seconds until a kill, and longer while the machine is too busy for progress


@pytest.fixture(params=["file", "folder"])
def origin(request: pytest.FixtureRequest, mesh: Mesh) -> Origin:
    source = mesh.root / "small"
    if request.param == "file":
        write_blob(source, 4 * CHUNK + 99, seed=SEED)
    else:
        (source / "deep").mkdir(parents=True)
        (source / "void").mkdir()
        write_blob(source / "deep" / "one", 2 * CHUNK + 1, seed=SEED)
        write_blob(source / "two", CHUNK, seed=SEED + 1)
        (source / "zero").touch()
    return Origin.of(mesh, source, CHUNK)


def kill_at(faulty: Commands, origin: Origin, root: Path, number: int) -> tuple[bool, int]:
    """Kill a download at one call, check what it left, and let another run finish it.

    Returns whether it was reached, and how many chunks were journaled then.
    """
    user = User(root)
    ended = faulty.run(user.files, origin.get(user), user.fault(KILL_AT, number, Outcome.KILL))
    assert ended.killed or ended.done.code == 0, (number, ended.done)
    kept = user.kept(origin.shared.file_id)
    chunks = kept.chunks_done if kept is not None else 0
    if kept is not None or not (user.files / origin.source.name).exists():
        again = faulty.run(user.files, origin.get(user))
        assert again.done.code == 0, (number, again.done)
        geometry, last = Geometry(origin.shared.size, CHUNK), again.done.last
        journaled = geometry.bytes_in(kept.have) if kept is not None else 0
        assert last["bytes_reused"] >= journaled, f"call {number}: a journaled chunk was fetched"
        assert last["bytes_reused"] + last["bytes_fetched"] == geometry.size, number
        assert last["bytes_wasted"] == 0, number
    check_finished(user, origin.source)
    return ended.killed, chunks


def kill_everywhere(
    faulty: Commands, origin: Origin, root: Path, numbers: Callable[[int], Sequence[int]]
) -> int:
    probe = User(root / "probe")
    plain = faulty.run(probe.files, origin.get(probe), probe.fault(KILL_AT, 0, Outcome.KILL))
    assert plain.done.code == 0, plain.done
    assert plain.calls > 20, "the calls of a download are not seen"
    chosen = numbers(plain.calls)
    outcomes = [kill_at(faulty, origin, root / str(n), n) for n in chosen]
    killed = [reached for reached, _ in outcomes]
    assert sum(killed) >= 0.9 * len(killed), "too few of the calls were reached"
    assert any(journaled for _, journaled in outcomes), "nothing was journaled"
    return len(chosen)


def test_killed_at_a_disk_call_a_download_is_taken_up(
    faulty: Commands, origin: Origin, tmp_path: Path
) -> None:
    rng = Random(SEED)
    kill_everywhere(
        faulty,
        origin,
        tmp_path / "users",
        lambda calls: sorted(rng.sample(range(1, calls + 1), SAMPLE)),
    )


@pytest.mark.promise(1)
@pytest.mark.slow
def test_killed_at_every_disk_call_a_download_is_taken_up(
    faulty: Commands, origin: Origin, tmp_path: Path, record_property: Record
) -> None:
    cases = kill_everywhere(faulty, origin, tmp_path / "users", lambda calls: range(1, calls + 1))
    record_property("cases", cases)
    record_property("result", "killed at every write, sync and rename: taken up each time")


@pytest.mark.promise(1)
@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_that_was_journaled_is_fetched_again(
    commands: Commands, mesh: Mesh, tmp_path: Path, kills: int, record_property: Record
) -> None:
    rng = Random(SEED)
    source = write_blob(tmp_path / "large", LARGE, seed=SEED)
    origin = Origin.of(mesh, source, LARGE_CHUNK)
    user, rounds, journaled, most = User(tmp_path / "user"), 0, 0, 0
    longest = LONGEST
    for number in range(kills):
        started = commands.start(user.files, origin.get(user, "--max-download", LARGE_RATE))
        if not started.ended_within(rng.uniform(0.0, longest)):
            started.kill()
        ended = started.end()
        done = [event["chunks_done"] for event in started.events if event["event"] == "started"]
        if done:
            assert done[0] >= journaled, f"kill {number}: journaled chunks were forgotten"
        before, journaled = journaled, _journaled(user, origin.shared.file_id)
        longest = LONGEST if journaled != before else 1.25 * longest
        most = max(most, journaled)
        if ended.killed and (not (user.files / source.name).exists() or journaled):
            continue
        check_finished(user, source)
        (user.files / source.name).unlink()
        rounds, journaled = rounds + 1, 0
    last = commands.run(user.files, origin.get(user))
    assert last.done.code == 0, last.done
    assert most > origin.shared.chunks // 20, "hardly anything was journaled"
    assert last.done.last["bytes_reused"] >= journaled * LARGE_CHUNK
    assert last.done.last["bytes_reused"] + last.done.last["bytes_fetched"] == LARGE
    check_finished(user, source)
    record_property("cases", kills)
    record_property("result", f"random kills in {rounds + 1} downloads of {LARGE >> 20} MiB")


def _journaled(user: User, file_id: FileId) -> int:
    kept = user.kept(file_id)
    return kept.chunks_done if kept else 0


@pytest.mark.parametrize("origin", ["file"], indirect=True)
def test_killed_with_every_chunk_but_not_the_manifest_it_fetches_only_that(
    commands: Commands, origin: Origin, tmp_path: Path
) -> None:
    user = User(tmp_path / "user")
    user.home.mkdir()
    shared = origin.shared
    keep_part(
        user.home,
        shared.file_id,
        manifests=origin.node.home,
        source=origin.source,
        output=user.files / origin.source.name,
        chunks=(1 << shared.chunks) - 1,
    )
    shutil.rmtree(user.home / "manifests")  # the header is in the resume data
    nobody = user.get(shared.link.text, "127.0.0.1:1", "--timeout", 0.2)
    assert commands.run(user.files, nobody).done.code == 3
    ended = commands.run(user.files, origin.get(user))
    assert ended.done.code == 0, ended.done
    assert ended.done.last["bytes_fetched"] == 0
    check_finished(user, origin.source)
