"""Every parser on damaged and hostile input: short in `make test`, long in `make torture`.

`make fuzz` runs the same targets for as long as one likes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.fuzz.engine import CORPUS, Report, Target, attempt, fuzz, guarded, keep, shrink, weigh
from tests.fuzz.mutate import MAX_INPUT, Mutator
from tests.fuzz.targets import TARGETS

# Together less than ten seconds. Targets that start an event loop, agree on keys or
# write a file for each input get fewer.
SHORT_COUNT = 2_000
SHORT_COUNTS = {
    **dict.fromkeys(("config", "sync_index"), 100),
    **dict.fromkeys(("http", "link_reader", "catalog", "stored_manifest", "paths"), 300),
    **dict.fromkeys(("transfer_lock", "client_book"), 300),
    "sync_session": 80,
    **dict.fromkeys(("handshake", "handshake_payload", "lock", "orders", "journal", "psk"), 600),
}
SHORT_SEED = 20
LONG_SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))

every_target = pytest.mark.parametrize("name", sorted(TARGETS))


def assert_no_crash(report: Report) -> None:
    if report.crash is not None:
        pytest.fail(report.told(), pytrace=False)


@every_target
def test_only_documented_errors_leave_a_parser(name: str) -> None:
    count = SHORT_COUNTS.get(name, SHORT_COUNT)
    assert_no_crash(fuzz(TARGETS[name], seed=SHORT_SEED, count=count))


@pytest.mark.slow
@every_target
def test_only_documented_errors_leave_a_parser_for_long(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    seed = SystemRandom().randrange(2**32)
    report = fuzz(TARGETS[name], seed=seed, seconds=LONG_SECONDS)
    record_property("row", 8)
    record_property("cases", report.inputs)
    record_property("result", f"only the documented errors in {LONG_SECONDS:g} s for each parser")
    assert_no_crash(report)


@every_target
def test_the_corpus_is_what_the_formats_of_today_make(name: str) -> None:
    corpus = TARGETS[name].corpus()
    for seed, data in TARGETS[name].seeds().items():
        assert corpus[seed] == data, "after a deliberate change: python -m tests.fuzz.make_corpus"


@every_target
def test_some_of_the_corpus_is_accepted(name: str) -> None:
    """A target that refuses everything at the door would test only the door."""
    target, accepted = TARGETS[name], 0
    for data in target.corpus().values():
        try:
            target.run(data)
        except target.errors:
            continue
        accepted += 1
    # Whoever holds the lock, it is refused; the input only says by whom.
    assert accepted or name == "lock"


def test_every_corpus_has_its_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


# --- the engine ---------------------------------------------------------------------


def target_of(run: Callable[[bytes], object]) -> Target:
    return Target("units", run, dict, (ValueError,))


def fails_on_zeros(data: bytes) -> None:
    if b"\0" in data:
        raise IndexError("a zero")


def tells_too_much(data: bytes) -> None:
    raise ValueError(f"bad input {data.decode('latin-1')}")


def takes_long(data: bytes) -> None:
    start = time.thread_time()
    while time.thread_time() < start + 1.1:
        pass


def takes_memory(data: bytes) -> None:
    assert len(bytes(100 * 1024 * 1024)) > 0


def takes_all_memory(data: bytes) -> None:
    bytearray(2**50)


def recurses(data: bytes) -> None:
    recurses(data)


@pytest.mark.parametrize(
    ("run", "data", "kind"),
    [
        (fails_on_zeros, b"12\x003", "IndexError"),
        (tells_too_much, b"\x1b[2J", "message"),
        (takes_all_memory, b"", "MemoryError"),
        (recurses, b"", "RecursionError"),
    ],
)
def test_what_is_a_crash(run: Callable[[bytes], object], data: bytes, kind: str) -> None:
    with guarded():
        crash = attempt(target_of(run), data)
    assert crash is not None
    assert crash.kind == kind


def test_slowness_and_hunger_are_crashes() -> None:
    with guarded():
        slow, hungry = attempt(target_of(takes_long), b""), weigh(target_of(takes_memory), b"")
    assert slow is not None
    assert slow.kind == "slow"
    assert hungry is not None
    assert hungry.kind == "memory"


def test_what_is_documented_is_no_crash() -> None:
    with guarded():
        assert attempt(target_of(int), b"no number") is None
        assert weigh(target_of(int), b"no number") is None


def test_a_crasher_is_found_again_from_its_seed_and_made_small(tmp_path: Path) -> None:
    target = target_of(fails_on_zeros)
    reports = [fuzz(target, seed=5, count=10_000) for _ in range(2)]
    assert reports[0] == reports[1]
    crash = reports[0].crash
    assert crash is not None
    assert crash.data == b"\0"
    path = keep(crash, tmp_path / "made")
    assert attempt(target, path.read_bytes()) is not None
    assert shrink(target, crash) == crash


def test_mutation_follows_its_seed_and_changes_things() -> None:
    pool = [b'{"size": 12}', b"x" * 100]

    def mutated(seed: int) -> list[bytes]:
        mutator = Mutator(Random(seed), pool, [b"token"])
        return [mutator.next() for _ in range(300)]

    made = mutated(1)
    assert made == mutated(1)
    assert made != mutated(2)
    assert len({*made} - {*pool}) > 200
    assert all(len(data) <= MAX_INPUT for data in made)
