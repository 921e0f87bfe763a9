from __future__ import annotations

from pathlib import Path

import pytest

from furymesh.core.errors import EnvironmentFault, SourceChangedError
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.link import Link
from furymesh.storage.catalog import Catalog
from furymesh.storage.finished import FinishedReader, adopt, facts_of
from furymesh.storage.scan import scan
from furymesh.storage.sharing import create_share


def test_facts_are_those_that_a_scan_finds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    for name in ("b/c", "a", "b.txt"):
        (folder / name).write_bytes(name.encode())
    for path in (folder, folder / "a"):
        found = scan(path)
        assert facts_of(path, found.layout) == found.facts
    layout = scan(folder).layout
    (folder / "a").unlink()
    with pytest.raises(EnvironmentFault):
        facts_of(folder, layout)


def test_what_was_edited_since_is_not_adopted(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "data")
    path = tmp_path / "film"
    path.write_bytes(b"as it was")
    made = create_share(
        path,
        catalog=catalog,
        algorithm=HashAlgorithm.BLAKE3,
        progress=lambda _: None,
        cancelled=lambda: False,
    )
    facts = scan(path).facts
    assert adopt(catalog, Link(made.file_id), path, facts).facts == facts
    path.write_bytes(b"as it is!")
    with pytest.raises(SourceChangedError, match="share it again"):
        adopt(catalog, Link(made.file_id), path, facts)
    with pytest.raises(EnvironmentFault):
        FinishedReader(tmp_path / ("x" * 300), made.manifest, None)
