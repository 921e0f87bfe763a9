import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from furymesh.storage.fdcache import FdCache
from furymesh.storage.files import open_root

NAMES = [(f"f{number}",) for number in range(6)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[FdCache]:
    for (name,) in NAMES:
        (tmp_path / name).write_text(name)
    made = FdCache(open_root(tmp_path), limit=3)
    yield made
    made.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def read(cache: FdCache, name: tuple[str, ...]) -> str:
    with cache.borrow(name) as fd:
        return os.pread(fd, 10, 0).decode()


def test_keeps_the_most_recently_used(cache: FdCache) -> None:
    before = open_files()
    for name in NAMES:
        assert read(cache, name) == name[0]
        assert open_files() <= before + 3
    for name in NAMES[-3:]:
        with cache.borrow_if_open(name) as fd:
            assert fd is not None
    with cache.borrow_if_open(NAMES[0]) as fd:
        assert fd is None
    read(cache, NAMES[3])
    read(cache, NAMES[0])
    with cache.borrow_if_open(NAMES[4]) as fd:
        assert fd is None


def test_one_open_serves_all(cache: FdCache) -> None:
    with cache.borrow(NAMES[0]) as one, cache.borrow(NAMES[0]) as other:
        assert one == other


def test_what_is_lent_stays_open(cache: FdCache) -> None:
    before = open_files()
    with cache.borrow(NAMES[0]) as fd:
        for name in NAMES[1:]:
            read(cache, name)
        assert os.pread(fd, 10, 0) == b"f0"
        cache.close()
        assert os.pread(fd, 10, 0) == b"f0"
    assert open_files() == before - 1  # the root went too
    with pytest.raises(OSError, match="closed"):
        read(cache, NAMES[1])
    cache.close()


def test_more_borrowers_than_places(cache: FdCache) -> None:
    before = open_files()
    borrowed = [cache.borrow(name) for name in NAMES]
    fds = [each.__enter__() for each in borrowed]
    assert [os.pread(fd, 10, 0).decode() for fd in fds] == [name for (name,) in NAMES]
    for each in borrowed:
        each.__exit__(None, None, None)
    assert open_files() == before + 3


def test_failed_open_leaves_nothing(cache: FdCache) -> None:
    before = open_files()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            read(cache, ("none",))
    assert open_files() == before


def test_threads_share_it(cache: FdCache) -> None:
    wrong: list[str] = []

    def work(seed: int) -> None:
        for step in range(300):
            name = NAMES[(seed + step * (seed + 1)) % len(NAMES)]
            if read(cache, name) != name[0]:
                wrong.append(name[0])

    before = open_files()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert open_files() <= before + 3
