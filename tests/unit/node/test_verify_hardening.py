from __future__ import annotations

from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault
from furymesh.node import face
from furymesh.storage.check import Check
from tests.apart import apart


async def test_disk_that_cannot_be_read_is_one_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.bin"
    path.write_bytes(b"content")
    config = apart({"data_dir": tmp_path / "home"})
    shared = await face.share(path, config)

    def fail(self: Check) -> int:
        raise EnvironmentFault("the disk reports errors")

    monkeypatch.setattr(Check, "run", fail)
    with pytest.raises(EnvironmentFault, match="reports errors"):
        await face.verify(path, shared.file_id.hex(), config, progress=lambda done, total: None)
