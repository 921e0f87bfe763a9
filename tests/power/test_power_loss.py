"""The power goes off at any moment of a download, and the disk forgets what it may.

The disk operations of a real download are recorded, every state is made that
they may leave behind (see `disk`), and the product is set on each: it must not
believe in a chunk that is not there, refuse nothing, lose nothing that was
there, and end with the very file.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.link import Address, Link
from furymesh.core.manifest import Manifest
from furymesh.node import face
from furymesh.node.config import load_config
from furymesh.node.runtime import open_runtime
from furymesh.storage import resume, resume_reader
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.part_names import part_path
from furymesh.storage.resume import Damaged, list_all
from tests.e2e.mesh import Mesh, write_blob
from tests.e2e.parts import right_in
from tests.power import trace
from tests.power.disk import Contents, Recording, on_disk
from tests.power.replay import Replay
from tests.reliability import Record

pytestmark = pytest.mark.skipif(not trace.AVAILABLE, reason="no strace to record with")

SEED = 4
CHUNK = 16 * 1024
CHUNKS, LONG_CHUNKS = 20, 40
SHORT_STATES = 150
LONG_STATES = 1000  # at least; all there are
RATE = "160K"  # of the recorded downloads: slow enough for two epochs
LONG_RATE = "140K"  # and for snapshots between them
CONFIG = (
    "discovery: {lan: {enabled: false}, dht: {enabled: false}}\n"
    "storage: {reserve: '0'}\n"
    "transfer: {resume_save_interval: 2, timeout: 10}\n"
)
BOOT_AFTER = b"\x01" * 16  # another than that of this machine, in which was recorded


@dataclass(frozen=True, slots=True)
class Setting:
    """A share that is served, and where its download is recorded and replayed."""

    mesh: Mesh
    link: Link
    source: Path
    seed: Path  # the data directory of the sharer
    disk: Path

    @property
    def home(self) -> Path:
        return self.disk / "data" / "home"

    @property
    def final(self) -> Path:
        return self.disk / self.source.name

    @property
    def part(self) -> Path:
        return part_path(self.final, self.link.file_id)

    def record(self, rate: str) -> Recording:
        """Download it once, and tell what that asked of the disk."""
        node = self.mesh.node(self.seed)
        config = self.mesh.root / "user.yaml"
        config.write_text(CONFIG)
        log = self.mesh.root / "trace"
        argv = [sys.executable, "-m", "furymesh", "get", self.link.text, "--output", self.final]
        argv += ["--peer", node.address, "--max-download", rate]
        argv += ["--config", config, "--data-dir", self.home]
        trace.run([str(word) for word in argv], log, cwd=self.mesh.root)
        node.process.stop()
        recording = Recording(self.disk, trace.read(log, [self.disk]))
        told = {path: content for path, _, content in recording.everything().walk()}
        assert told == on_disk(self.disk), "the model is not what the disk holds"
        return recording


def a_file(root: Path, chunks: int) -> Path:
    return write_blob(root / "film.bin", CHUNK * chunks - 100, SEED)


def a_folder(root: Path, chunks: int) -> Path:
    folder = root / "films"
    (folder / "old" / "silent").mkdir(parents=True)
    (folder / "empty").mkdir()
    write_blob(folder / "one.bin", CHUNK * chunks // 2, SEED)
    write_blob(folder / "old" / "two.bin", CHUNK * chunks // 3 + 7, SEED + 1)
    write_blob(folder / "old" / "silent" / "three.bin", 100, SEED + 2)
    return folder


def prepare(mesh: Mesh, make: Callable[[Path, int], Path], chunks: int) -> Setting:
    source = make(mesh.root, chunks)
    seed = mesh.home("seed")
    shared = mesh.share(seed, source, chunk_size=CHUNK)
    disk = mesh.root / "disk"
    disk.mkdir()
    return Setting(mesh, shared.link, source, seed, disk)


class Survivor:
    """Looks at a state as the product finds it, then lets the product go on."""

    def __init__(self, setting: Setting, peers: list[Address]) -> None:
        self._setting = setting
        self._peers = peers
        self._config = load_config(setting.mesh.root / "user.yaml", setting.home)
        manifest = ManifestStore(setting.seed).load(setting.link.file_id)
        assert manifest is not None
        self._manifest: Manifest = manifest
        self._whole = contents(setting.source)

    async def go_on(self) -> None:
        setting, geometry = self._setting, self._manifest.header.geometry
        final, part = setting.final, setting.part
        if final.exists():
            assert contents(final) == self._whole, "the name was given to something else"
        found = list_all(setting.home / "resume")
        if final.exists() and not found:
            return  # it was finished
        kept = 0
        for summary in found:
            assert not isinstance(summary, Damaged), summary.reason
            assert Path(summary.meta.part) == part
            lies = final if final.exists() else part
            kept = right_in(lies, self._manifest, summary.have | summary.doubtful)
            assert summary.have & ~kept == 0, "a chunk is believed in that is not there"
        result = await face.get(setting.link, self._config, output=final, peers=self._peers)
        assert result.path == final
        assert contents(final) == self._whole
        assert result.bytes_reused >= geometry.bytes_in(kept), "what was there was fetched again"
        assert sorted(os.listdir(setting.disk)) == sorted(["data", final.name])
        assert os.listdir(setting.home / "resume") == []


def contents(path: Path) -> bytes | dict[str, bytes | None]:
    return on_disk(path) if path.is_dir() else path.read_bytes()


def unlike(recording: Recording) -> list[tuple[str, Contents]]:
    """The states of a recording, each once."""
    found = {tuple(state.walk()): (name, state) for name, state in recording.states()}
    return list(found.values())


async def survive(
    setting: Setting, recording: Recording, states: list[tuple[str, Contents]], lost: Path
) -> None:
    replay = Replay(recording, setting.final, setting.mesh.root / "vault")
    config = load_config(setting.mesh.config_of(setting.seed), setting.seed)
    async with open_runtime(config, listen_on=Address("127.0.0.1", 0)) as runtime:
        await runtime.load_catalog()
        survivor = Survivor(setting, [Address.parse(runtime.addresses[0])])
        for name, state in states:
            replay.put(state)
            try:
                with trio.fail_after(30):
                    await survivor.go_on()
            except BaseException as error:
                replay.put(state)
                shutil.copytree(setting.disk, lost)
                error.add_note(f"state: {name}; seed {SEED}; kept in {lost}")
                raise


@pytest.fixture
def rebooted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "current_boot_id", lambda: BOOT_AFTER)
    monkeypatch.setattr(resume_reader, "current_boot_id", lambda: BOOT_AFTER)


@pytest.mark.usefixtures("rebooted")
def test_power_cut_at_some_moments(mesh: Mesh, tmp_path: Path) -> None:
    setting = prepare(mesh, a_file, CHUNKS)
    recording = setting.record(RATE)
    states = unlike(recording)
    chosen = Random(SEED).sample(states, SHORT_STATES)
    trio.run(survive, setting, recording, chosen, tmp_path / "lost")


@pytest.mark.promise(4)
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("rebooted")
@pytest.mark.parametrize("make", [a_file, a_folder])
def test_power_cut_at_every_moment(
    mesh: Mesh,
    tmp_path: Path,
    make: Callable[[Path, int], Path],
    record_property: Record,
) -> None:
    setting = prepare(mesh, make, LONG_CHUNKS)
    recording = setting.record(LONG_RATE)
    states = unlike(recording)
    assert len(states) >= LONG_STATES
    record_property("cases", len(states))
    trio.run(survive, setting, recording, states, tmp_path / "lost")
    record_property("result", "no chunk believed in that was not there")
