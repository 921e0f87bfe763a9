"""The n-th disk call fails: one plain line, nothing else suffers, another run completes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from furymesh.cli.main import main
from furymesh.core.ids import FileId
from tests.e2e.mesh import DEADLINE, Mesh, RunningNode, same, write_blob
from tests.faults.disk import (
    SEED,
    Calls,
    Commands,
    Ended,
    Fault,
    Outcome,
    Started,
    User,
    check_finished,
)
from tests.reliability import Record
from tests.waiting import block_until

CHUNK = 16 * 1024
SAMPLE = {Outcome.EIO: 10, Outcome.ENOSPC: 1, Outcome.EDQUOT: 1}  # these two wait for a second
SAMPLE_OTHERS = 4
NODE_SAMPLE = 1
ANY = Calls.OPEN | Calls.CREATE | Calls.READ | Calls.WRITE | Calls.SYNC | Calls.RENAME
CHANGES = Calls.CREATE | Calls.WRITE | Calls.SYNC | Calls.RENAME | Calls.RESIZE
KINDS = {
    Outcome.EIO: ANY | Calls.RESIZE | Calls.REMOVE,
    Outcome.ENOSPC: CHANGES,
    Outcome.EDQUOT: CHANGES,
    Outcome.EROFS: CHANGES | Calls.REMOVE,
    Outcome.EMFILE: Calls.OPEN | Calls.CREATE,
    Outcome.SHORT: Calls.WRITE,
}
BUG = re.compile("bug|internal error")
OUTCOMES = pytest.mark.parametrize("outcome", list(KINDS), ids=lambda outcome: outcome.name)


class Origin:
    """A node that shares a small file and a larger one."""

    def __init__(self, mesh: Mesh) -> None:
        self.small = write_blob(mesh.root / "small", 4 * CHUNK + 99, seed=SEED)
        self.large = write_blob(mesh.root / "large", 100 * CHUNK, seed=SEED + 1)
        shared = [mesh.share("origin", path, chunk_size=CHUNK) for path in (self.small, self.large)]
        self.links = [one.link.text for one in shared]
        self.file_id: FileId = shared[0].file_id
        self.node: RunningNode = mesh.node("origin")

    def get(self, user: User) -> list[object]:
        return user.get(self.links[0], self.node.address)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    mesh = Mesh(tmp_path_factory.mktemp("origin"))
    try:
        yield Origin(mesh)
    finally:
        mesh.close()


def complaint_of(ended: Ended) -> str:
    """The one line of a failure; what was told before it were notes of a pause."""
    lines = [line for line in ended.done.err.splitlines() if not line.startswith("Progress: ")]
    assert lines, ended.done
    assert all("paused: " in line or "room again" in line for line in lines[:-1]), lines
    assert lines[-1].startswith("furymesh: "), lines
    assert not BUG.search(lines[-1]), lines
    return lines[-1]


def fail_at(faulty: Commands, origin: Origin, root: Path, number: int, outcome: Outcome) -> bool:
    """Let one call fail, look at what that leaves, and let another run finish it."""
    user, case = User(root), (outcome.name, number)
    fault = user.fault(KINDS[outcome], number, outcome)
    ended = faulty.run(user.files, origin.get(user), fault)
    user.kept(origin.file_id)
    if ended.done.code == 0:
        check_finished(user, origin.small)
        return ended.hit
    assert ended.done.code == 1, (case, ended.done)
    assert ended.hit, (case, ended.done)
    assert outcome is not Outcome.SHORT, (case, complaint_of(ended))
    complaint_of(ended)
    finished = (user.files / origin.small.name).exists() and user.kept(origin.file_id) is None
    if not finished:
        again = faulty.run(user.files, origin.get(user))
        assert again.done.code == 0, (case, ended.done, again.done)
    check_finished(user, origin.small)
    return True


def calls_of(faulty: Commands, origin: Origin, root: Path, outcome: Outcome) -> int:
    """How many calls of a download may fail that way."""
    user = User(root)
    ended = faulty.run(user.files, origin.get(user), user.fault(KINDS[outcome], 0, outcome))
    assert ended.done.code == 0, ended.done
    assert ended.calls > 5, "the calls of a download are not seen"
    return ended.calls


@OUTCOMES
def test_a_disk_call_fails(
    faulty: Commands, origin: Origin, tmp_path: Path, outcome: Outcome
) -> None:
    calls = calls_of(faulty, origin, tmp_path / "probe", outcome)
    count = SAMPLE.get(outcome, SAMPLE_OTHERS)
    for number in Random(SEED + outcome).sample(range(1, calls + 1), count):
        fail_at(faulty, origin, tmp_path / str(number), number, outcome)


@pytest.mark.promise(3)
@pytest.mark.slow
@OUTCOMES
def test_each_disk_call_fails(
    faulty: Commands, origin: Origin, tmp_path: Path, outcome: Outcome, record_property: Record
) -> None:
    calls = calls_of(faulty, origin, tmp_path / "probe", outcome)
    numbers = range(1, calls + 1)
    hits = [fail_at(faulty, origin, tmp_path / str(n), n, outcome) for n in numbers]
    assert sum(hits) >= 0.9 * calls, "too few of the calls were reached"
    record_property("cases", calls)
    record_property("result", "one line or none, and the next run completes")


# --- a node with two downloads ----------------------------------------------------------


@contextmanager
def running_node(faulty: Commands, user: User, fault: Fault) -> Iterator[Started]:
    argv = user.argv("node", "--listen", "127.0.0.1:0", "--json")
    node = faulty.start(user.files, argv, fault)
    try:
        block_until(lambda: node.events, DEADLINE)
        yield node
    finally:
        os.kill(node.pid, signal.SIGKILL)
        node.end()


def order(user: User, origin: Origin, link: str, where: Path) -> None:
    address = origin.node.address
    argv = user.argv("get", link, "--detach", "--peer", address, "--output", where)
    assert main([str(word) for word in argv]) == 0


def told(node: Started, text: str) -> bool:
    return any(text in line for line in node.err.splitlines())


def fail_beside(faulty: Commands, origin: Origin, root: Path, fault: tuple[int, Outcome]) -> int:
    """One of a node's two downloads fails; returns how many calls its directory saw."""
    user, (number, outcome) = User(root), fault
    bad, good = root / "bad", root / "good"
    for place in (bad, good):
        place.mkdir()
    small, large = bad / origin.small.name, good / origin.large.name
    armed = Fault((bad, bad), KINDS[outcome], number, outcome)
    with running_node(faulty, user, armed) as node:
        order(user, origin, origin.links[0], bad)
        order(user, origin, origin.links[1], good)
        block_until(lambda: told(node, f"finished {large}"), DEADLINE)
        assert same(large, origin.large)
        block_until(lambda: told(node, "small: ") or told(node, f"finished {small}"), DEADLINE)
        if not told(node, f"finished {small}"):
            (line,) = [line for line in node.err.splitlines() if "small: " in line]
            assert not BUG.search(line), (fault, line)
            order(user, origin, origin.links[0], bad)
            block_until(
                lambda: told(node, f"finished {small}") or told(node, "small is here already"),
                DEADLINE,
            )
        assert same(small, origin.small), fault
    return node.end().calls


def fail_beside_at(
    faulty: Commands, origin: Origin, root: Path, outcome: Outcome, share: int
) -> int:
    calls = fail_beside(faulty, origin, root / "probe", (0, outcome))
    assert calls >= 5, "the calls of a download are not seen"
    numbers: Iterable[int] = range(1, calls + 1)
    if share:
        numbers = Random(SEED).sample(list(numbers), share)
    for number in numbers:
        fail_beside(faulty, origin, root / str(number), (number, outcome))
    return calls


def test_other_downloads_of_a_node_go_on(faulty: Commands, origin: Origin, tmp_path: Path) -> None:
    fail_beside_at(faulty, origin, tmp_path / "node", Outcome.EIO, NODE_SAMPLE)


@pytest.mark.promise(3)
@pytest.mark.slow
@OUTCOMES
def test_other_downloads_of_a_node_go_on_whatever_fails(
    faulty: Commands, origin: Origin, tmp_path: Path, outcome: Outcome, record_property: Record
) -> None:
    cases = fail_beside_at(faulty, origin, tmp_path / "node", outcome, 0)
    record_property("cases", cases)
    record_property("result", "the node's other download completes")
