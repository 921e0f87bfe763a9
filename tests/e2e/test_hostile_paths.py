"""Whatever a share calls its files, nothing is opened for writing outside the folder."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.hostile_paths import SWAPS
from tests.reliability import Record
from tests.waiting import block_until

SEED = 19
SHORT_STEP = 25  # every so many cases; the long form takes each
TIMEOUT = 240.0  # seconds for all of them
CALLS = (
    "open,openat,openat2,creat,truncate,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,chmod,fchmodat,chown,fchownat,utimensat"
)
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(?:<(.*)>)?(?: .*)?$")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<((?:[^>\\]|\\.)*)>)?, )?"((?:[^"\\]|\\.)*)"')
_READING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)")


def writes(trace: Path) -> Iterator[tuple[str, Path]]:
    """What was opened for writing, made, moved or removed: the call, and each place it names."""
    for line in trace.read_text("latin-1").splitlines():
        call = _CALL.match(line)
        if call is None or (call[1].startswith("open") and not _READING.search(call[2])):
            continue
        named = _PLACE.findall(call[2])
        # What a link leads to is not touched by making the link.
        for folder, name in named[-1:] if call[1].startswith("symlink") else named:
            place = Path(_unescaped(folder) or "/") / _unescaped(name)
            yield line, Path(os.path.normpath(place))
        if call[4] and call[4].startswith("/"):
            yield line, Path(_unescaped(call[4]).removesuffix(" (deleted)"))


def _unescaped(text: str) -> str:
    raw, _ = codecs.escape_decode(text.encode("latin-1"))
    return os.fsdecode(raw)


def swap(folder: Path, outside: Path, ended: Callable[[], bool]) -> int:
    """Until it has ended, put links to `outside` in place of directories; how many."""
    swapped = 0

    def look() -> bool:
        nonlocal swapped
        for inner in folder.glob("swap*.part/a"):
            if not inner.is_symlink():
                aside = inner.with_name(f"aside-{swapped}")
                try:
                    inner.rename(aside)
                    inner.symlink_to(outside)
                except OSError:
                    continue  # published or made again in between
                swapped += 1
        return ended()

    block_until(look, TIMEOUT)
    return swapped


@pytest.mark.promise(19)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sees what is opened")
@pytest.mark.parametrize("step", [SHORT_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_nothing_is_written_outside_whatever_the_names_are(
    tmp_path: Path, step: int, record_property: Record
) -> None:
    root = tmp_path / "root"
    for name in ("home/files", "home/data", "server", "outside"):
        (root / name).mkdir(parents=True, mode=0o700)
    (root / "outside" / "file").write_text("mine")
    before = (root / "outside").stat()
    strace = ["strace", "-f", "-ff", "-qq", "-y", "-s", "8192", "--seccomp-bpf"]
    strace += ["-e", f"trace={CALLS}", "-o", str(tmp_path / "trace")]
    arguments = ["-m", "tests.e2e.hostile_paths", str(root), str(step), str(SEED)]
    files = root / "home" / "files"
    with (tmp_path / "out").open("w+") as out:
        process = subprocess.Popen(
            [*strace, sys.executable, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            swapped = swap(files, root / "outside", lambda: process.poll() is not None)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        told = out.read()
    assert process.returncode == 0, f"seed {SEED}, step {step}: {told[-3000:]}"
    result = json.loads(told.splitlines()[-1])
    assert result["wrong"] == [], f"seed {SEED}, step {step}"
    assert result["refused"] > 0
    assert result["finished"] > 0

    allowed = (root / "home", root / "server")
    seen = 0
    for trace in tmp_path.glob("trace.*"):
        for line, place in writes(trace):
            seen += 1
            inside = any(place.is_relative_to(root) for root in allowed)
            assert inside or place == Path("/dev/null"), f"seed {SEED}, step {step}: {line}"
    assert seen > result["cases"]  # the trace was read, and it shows the honest ones
    after = (root / "outside").stat()
    assert (root / "outside" / "file").read_text() == "mine"
    assert os.listdir(root / "outside") == ["file"]
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    if step == 1:
        assert result["cases"] >= 500
        assert swapped >= SWAPS / 2
    record_property("cases", result["cases"])
    record_property(
        "result",
        f"{result['refused']} refused, {result['finished']} finished, {swapped} links swapped in;"
        f" {seen} writing calls, none outside; seed {SEED}",
    )
