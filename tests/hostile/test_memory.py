"""A node under attack, in a house of 256 MiB, serves on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.hostile.assault import Scene, attack, every_case
from tests.hostile.conftest import Target
from tests.hostile.siege import Besieger, besieged, deaf, idle, trickling, useless
from tests.waiting import block_until

CEILING = 256 * 1024 * 1024
CROWD: dict[Besieger, int] = {idle: 150, trickling: 150, useless: 60, deaf: 100}
SHORT_CASES, LONG_CASES = 1, 20  # of hostile frames, per message type and state
Record = Callable[[str, object], None]


@pytest.fixture
def ceiling(target: Target) -> Iterator[Path]:
    """A control group that the target is put into; it cannot use more than CEILING."""
    mine = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    place = next((path for _, names, path in mine if "memory" in names.split(",")), None)
    if place is None:
        pytest.skip("no memory control group (version 1) here")
    group = Path("/sys/fs/cgroup/memory") / place.lstrip("/") / f"furymesh-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(CEILING))
        (group / "cgroup.procs").write_text(str(target.pid))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory control group can be made: {error.strerror}")
    yield group
    target.node.process.stop()
    block_until(lambda: not (group / "cgroup.procs").read_text().split())
    group.rmdir()


def withstand(target: Target, scene: Scene, group: Path, cases: int) -> int:
    """Crowds and hostile frames together; the most memory that was in use."""
    with besieged(target.address, target.file_id, CROWD):
        trio.run(partial(attack, scene, every_case(cases)))
    assert target.node.process.process.poll() is None, "the node was killed"
    assert "oom_kill 0" in (group / "memory.oom_control").read_text()
    target.is_well()
    return int((group / "memory.max_usage_in_bytes").read_text())


def test_attacks_fit_in_a_small_house(target: Target, scene: Scene, ceiling: Path) -> None:
    withstand(target, scene, ceiling, SHORT_CASES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_long_attacks_fit_in_a_small_house(
    target: Target, scene: Scene, ceiling: Path, record_property: Record
) -> None:
    most = withstand(target, scene, ceiling, LONG_CASES)
    record_property("row", 14)
    record_property("cases", sum(CROWD.values()))
    record_property("result", f"no kill; {most >> 20} MiB of {CEILING >> 20} MiB at the most")
