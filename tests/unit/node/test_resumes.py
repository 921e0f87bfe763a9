from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import (
    AlreadyRunningError,
    AmbiguousIdError,
    DamagedResumeDataError,
    NotFoundError,
    UsageError,
)
from furymesh.core.ids import FileId, NodeId, node_id_text
from furymesh.core.link import MAX_LINK_PEERS, MAX_LINK_TRACKERS, Link, Tracker
from furymesh.node.config import Config
from furymesh.node.resumes import (
    clean_resume,
    find_resume,
    list_resume,
    show_resume,
    with_hints,
)
from furymesh.storage.lock import DownloadLock
from furymesh.storage.part_names import part_path
from furymesh.storage.resume import Damaged, ResumeData, ResumeMeta, resume_path

ONE = FileId(b"\xaa" * 31 + b"\1")
TWO = FileId(b"\xaa" * 31 + b"\2")
OTHER = FileId(b"\xbb" * 32)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.at(tmp_path / "data")


def keep(config: Config, file_id: FileId, part: Path, **hints: Any) -> Path:
    """Resume data of a download; where it lies."""
    directory = config.transfer.resume_dir
    output = str(part.with_suffix(""))
    meta = ResumeMeta(file_id, "film", output, str(part), 0.0, **hints)
    with ResumeData.create(directory, meta):
        return resume_path(directory, file_id)


def test_nothing_to_list(config: Config) -> None:
    assert list_resume(config) == []
    with pytest.raises(NotFoundError):
        find_resume("12345678", config)


def test_prefixes(config: Config, tmp_path: Path) -> None:
    for file_id in (ONE, TWO, OTHER):
        keep(config, file_id, tmp_path / "x.part")
    assert find_resume("bbbbbbbb", config) == OTHER
    assert find_resume(ONE.hex().upper(), config) == ONE
    with pytest.raises(AmbiguousIdError):
        find_resume("aaaaaaaa", config)
    with pytest.raises(UsageError):
        find_resume("bbb", config)
    with pytest.raises(NotFoundError):
        find_resume("cccccccc", config)


def test_a_link_gets_back_what_its_unfinished_download_remembers(
    config: Config, tmp_path: Path
) -> None:
    keep(config, ONE, tmp_path / "x.part")
    assert with_hints(Link(ONE), config) == Link(ONE)
    assert with_hints(Link(OTHER, "film"), config) == Link(OTHER, "film")
    urls = ("udp://192.0.2.1:6969", "forged", *[f"http://{n}.example/announce" for n in range(20)])
    nodes = [NodeId(bytes([number]) * 32) for number in range(100)]
    texts = ("forged", *map(node_id_text, nodes))
    keep(config, TWO, tmp_path / "y.part", trackers=urls, nodes=texts, private=True)
    known = with_hints(Link(TWO, "film"), config)
    assert known.trackers == tuple(map(Tracker.parse, (urls[0], *urls[2:9])))
    assert known.nodes == tuple(nodes[:MAX_LINK_PEERS])
    assert (known.name, known.private) == ("film", True)
    own = Link(TWO, trackers=(Tracker.parse("http://t.example/announce"),), nodes=(nodes[5],))
    more = with_hints(own, config)
    assert more.trackers[:2] == (*own.trackers, known.trackers[0])
    assert more.nodes[:2] == (nodes[5], nodes[0])
    assert len(more.trackers) == MAX_LINK_TRACKERS == len(set(more.trackers))


def test_damaged_data_is_listed_and_found_and_not_shown(config: Config, tmp_path: Path) -> None:
    keep(config, ONE, tmp_path / "x.part").write_bytes(b"rubbish")
    (item,) = list_resume(config)
    assert isinstance(item, Damaged)
    assert find_resume("aaaaaaaa", config) == ONE
    with pytest.raises(DamagedResumeDataError):
        show_resume(ONE, config)
    with pytest.raises(NotFoundError):
        show_resume(TWO, config)


def test_cleaning_removes_data_and_part(config: Config, tmp_path: Path) -> None:
    part = part_path(tmp_path / "film.mkv", ONE)
    part.write_bytes(b"some")
    path = keep(config, ONE, part)
    assert show_resume(ONE, config).meta.part == str(part)
    assert clean_resume(ONE, config).part == part
    assert not path.exists()
    assert not part.exists()
    assert os.listdir(config.transfer.resume_dir) == []
    assert clean_resume(ONE, config).part is None


def test_cleaning_removes_damaged_data(config: Config, tmp_path: Path) -> None:
    path = keep(config, ONE, tmp_path / "x.part")
    path.write_bytes(b"rubbish")
    clean_resume(ONE, config)
    assert not path.exists()


def test_forged_data_does_not_lead_to_other_files(config: Config, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    keep(config, ONE, precious)
    assert clean_resume(ONE, config).part is None
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("forged", ["\ud800.aaaaaaaa.part", "\udfff/x.aaaaaaaa.part"], ids=ascii)
def test_forged_paths_that_no_disk_knows_are_damage(
    config: Config, tmp_path: Path, forged: str
) -> None:
    path = keep(config, ONE, tmp_path / forged)
    (item,) = list_resume(config)
    assert isinstance(item, Damaged)
    assert clean_resume(ONE, config).part is None
    assert not path.exists()


def test_running_download_is_not_cleaned(config: Config, tmp_path: Path) -> None:
    path = keep(config, ONE, tmp_path / "x.part")
    with DownloadLock(config.transfer.resume_dir, ONE) as lock:
        lock.acquire("furymesh get")
        with pytest.raises(AlreadyRunningError):
            clean_resume(ONE, config)
    assert path.exists()
