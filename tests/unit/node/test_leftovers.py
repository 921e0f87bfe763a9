from __future__ import annotations

from pathlib import Path

from furymesh.core.ids import FileId
from furymesh.node.config import Config
from furymesh.node.runtime import open_runtime
from furymesh.storage.files import make_private_directory
from furymesh.storage.lock import DownloadLock
from tests.unit.storage.test_files import die_writing

DEAD, ALIVE = FileId(b"\x11" * 32), FileId(b"\x22" * 32)


async def test_a_start_removes_what_dead_processes_left_and_nothing_of_others(
    tmp_path: Path,
) -> None:
    config = Config.at(tmp_path / "home")
    states = [
        config.data_dir / "catalog" / f"{DEAD.hex()}.json",
        config.data_dir / "orders" / f"{DEAD.hex()}.json",
        config.data_dir / "manifests" / DEAD.hex(),
        config.data_dir / "banned" / "node.ban",
    ]
    for state in states:
        make_private_directory(state.parent)
        die_writing(state)
        assert len(list(state.parent.iterdir())) == 1
    resume_dir = config.transfer.resume_dir
    make_private_directory(resume_dir)
    dead, alive = (resume_dir / f"{file_id.hex()}.resume.new" for file_id in (DEAD, ALIVE))
    dead.touch()
    alive.touch()
    with DownloadLock(resume_dir, ALIVE) as lock:
        lock.acquire("furymesh get")
        async with open_runtime(config, listen_on=None) as runtime:
            assert runtime.problems == []
            assert not [path for state in states for path in state.parent.iterdir()]
            assert list(resume_dir.glob("*.new")) == [alive]
    async with open_runtime(config, listen_on=None):
        assert list(resume_dir.iterdir()) == []
