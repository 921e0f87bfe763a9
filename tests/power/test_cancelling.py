"""A download is cancelled at each step that any of its tasks takes.

Trio runs tasks in steps, from one checkpoint to the next; so cancelling before
every step of every task is cancelling at every checkpoint. Whenever it happens,
nothing stays open or alive, and the next download takes up what was there.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.link import Address, Link
from furymesh.core.manifest import Manifest
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.part_names import part_path
from furymesh.storage.resume import Summary, list_all, resume_path
from furymesh.swarm.events import Result
from tests.apart import apart
from tests.e2e.mesh import Mesh, write_blob
from tests.e2e.parts import keep_part, right_in
from tests.proc import open_files
from tests.reliability import Record
from tests.waiting import until

SEED = 2
CHUNK = 16 * 1024
CHUNKS = 24
SIZE = CHUNKS * CHUNK - 100
HALF = mask_of(range(0, CHUNKS, 2))
SHORT_STRIDE = 20  # steps
MISSES = 3  # in a row: there are no more steps to cancel at
MIN_STEPS = 50  # no download of this size can do with less


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step that a task takes; counts them all."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._step = step
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self._step:
            self._scope.cancel()


@dataclass(frozen=True, slots=True)
class Trial:
    """A share, and where it is downloaded again and again."""

    link: Link
    source: Path
    manifest: Manifest
    peers: tuple[Address, ...]
    config: Config
    final: Path
    seed: Path  # the data directory of the sharer

    def begin(self, half: bool) -> None:
        """Start from nothing, or from a part without resume data, which is to be hashed."""
        for place in (self.config.data_dir, self.final.parent):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        if half:
            keep_part(
                self.config.data_dir,
                self.link.file_id,
                manifests=self.seed,
                source=self.source,
                output=self.final,
                chunks=HALF,
            )
            resume_path(self.config.transfer.resume_dir, self.link.file_id).unlink()

    async def cancelled_at(self, step: int) -> int:
        """Download until that step, check, and go on to the end; the steps taken."""
        before = open_files()
        tasks = trio.lowlevel.current_statistics().tasks_living
        taken = await self._interrupted(step)
        # Threads that were hashing end with the chunk that they are at.
        await until(lambda: open_files() == before)
        assert trio.lowlevel.current_statistics().tasks_living == tasks, "a task lives on"
        await self._check_state()
        return taken

    async def _interrupted(self, step: int) -> int:
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await self._get()
            finally:
                # By the scope's end it is removed already where it failed.
                with suppress(KeyError):
                    trio.lowlevel.remove_instrument(instrument)
        return instrument.steps

    async def _check_state(self) -> None:
        found = list_all(self.config.transfer.resume_dir)
        kept = 0
        for summary in found:
            assert isinstance(summary, Summary), summary.reason
            part = part_path(self.final, self.link.file_id)
            lies = self.final if self.final.exists() else part
            kept = right_in(lies, self.manifest, summary.have)
            assert kept == summary.have, "a chunk is believed in that is not there"
        if not self.final.exists() or found:
            result = await self._get()
            assert result.path == self.final
            assert result.bytes_reused >= self.manifest.header.geometry.bytes_in(kept)
        assert self.final.read_bytes() == self.source.read_bytes()
        assert os.listdir(self.final.parent) == [self.final.name]
        assert os.listdir(self.config.transfer.resume_dir) == []

    async def _get(self) -> Result:
        return await face.get(self.link, self.config, output=self.final, peers=self.peers)


@pytest.fixture
def trial(mesh: Mesh) -> Trial:
    source = write_blob(mesh.root / "film.bin", SIZE, SEED)
    shared = mesh.share("seed", source, chunk_size=CHUNK)
    node = mesh.node("seed")
    manifest = ManifestStore(node.home).load(shared.file_id)
    assert manifest is not None
    config = apart({"data_dir": mesh.root / "user", "storage": {"reserve": "0"}})
    peers = (Address.parse(node.address),)
    final = mesh.root / "files" / "film.bin"
    return Trial(shared.link, source, manifest, peers, config, final, node.home)


async def cancel_everywhere(trial: Trial, half: bool, stride: int) -> int:
    """Cancel at each `stride`-th step, until a download ends before its turn; the cases."""
    cases, step = 0, 1
    missed = 0
    # How many steps there are varies a little with what the other end does when.
    while missed < MISSES:
        trial.begin(half)
        try:
            with trio.fail_after(30):
                taken = await trial.cancelled_at(step)
        except BaseException as error:
            error.add_note(f"cancelled at step {step}")
            raise
        missed = missed + 1 if taken < step else 0
        cases += 1
        step += stride
    return cases


@pytest.mark.parametrize("half", [False, True], ids=["from nothing", "from a part"])
def test_cancelled_at_some_steps(trial: Trial, half: bool) -> None:
    assert trio.run(cancel_everywhere, trial, half, SHORT_STRIDE) > MISSES


@pytest.mark.promise(2)
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("half", [False, True], ids=["from nothing", "from a part"])
def test_cancelled_at_every_step(trial: Trial, half: bool, record_property: Record) -> None:
    cases = trio.run(cancel_everywhere, trial, half, 1)
    assert cases > MIN_STEPS
    record_property("cases", cases)
    record_property("result", "nothing leaked at any step, resumed to the same file")
