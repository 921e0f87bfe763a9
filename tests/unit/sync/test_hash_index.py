from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from furymesh.storage.scan import Facts
from furymesh.sync.hash_index import HashIndex, state_path

FACTS = Facts(1, 2, 3, 4, 5)
HASH = bytes(range(32))


def filled(path: Path, count: int = 3) -> HashIndex:
    index = HashIndex(path)
    for number in range(count):
        index.put(FACTS._replace(inode=number), HASH)
    index.save()
    return index


def test_a_hash_is_found_again_by_exactly_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "sync" / "x.index"
    index = HashIndex(path)
    index.put(FACTS, HASH)
    index.put(FACTS._replace(mtime_ns=-1, ctime_ns=2**62), HASH[::-1])
    index.save()
    again = HashIndex(path)
    assert again.get(FACTS) == HASH
    assert again.get(FACTS._replace(mtime_ns=-1, ctime_ns=2**62)) == HASH[::-1]
    for field in Facts._fields:
        assert again.get(FACTS._replace(**{field: 77})) == b""
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_facts_that_prove_nothing_are_not_kept(tmp_path: Path) -> None:
    index = HashIndex(tmp_path / "x")
    index.put(FACTS.unproven(), HASH)
    assert len(index) == 0
    assert index.get(FACTS.unproven()) == b""


def test_a_complete_look_forgets_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    index = filled(path)
    index.begin()
    assert index.get(FACTS._replace(inode=1)) == HASH
    index.end(complete=True)
    assert len(index) == 1
    index.save()
    assert len(HashIndex(path)) == 1


def test_a_look_that_was_cut_short_forgets_nothing(tmp_path: Path) -> None:
    index = filled(tmp_path / "x")
    index.begin()
    index.get(FACTS._replace(inode=1))
    index.put(FACTS._replace(inode=9), HASH)
    index.end(complete=False)
    assert len(index) == 4
    index.begin()
    index.begin()
    index.save()
    assert len(HashIndex(tmp_path / "x")) == 4


def test_nothing_is_written_if_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    HashIndex(path).save()
    assert not path.exists()
    index = filled(path)
    before = path.stat().st_ino
    index.begin()
    for number in range(3):
        index.get(FACTS._replace(inode=number))
    index.end(complete=True)
    index.save()
    assert path.stat().st_ino == before


def test_any_damage_means_hashing_again_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    filled(path, 20)
    good = path.read_bytes()
    rng = random.Random(7)
    bad = [
        b"",
        b"{}",
        good[:-1],
        good[:30],
        good + b"\0" * 72,
        good.replace(b"index 1", b"index 2"),
    ]
    for _ in range(200):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        bad.append(bytes(flipped))
    for raw in bad:
        path.write_bytes(raw)
        index = HashIndex(path)
        assert len(index) == 0, raw[:80]
    index.save()
    assert HashIndex(path).get(FACTS) == b""
    assert path.read_bytes() != raw  # mended, empty as it is


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_an_index_that_is_no_file_is_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    filled(tmp_path / "other")
    if kind == "link":
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert len(HashIndex(path)) == 0


def test_each_archive_has_its_own_file(tmp_path: Path) -> None:
    paths = {state_path(tmp_path, Path(archive), "index") for archive in ("/a", "/b", "/a/b")}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {tmp_path / "sync"}
