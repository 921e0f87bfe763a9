"""The disk operations of a process, exactly as the kernel saw them.

The process runs under strace, which prints every system call that can change a
file or its name, with all bytes that were written. A call has two moments, its
begin and its end: what it did happened in between, and a sync covers only what
had ended before it began.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# All that can change content or names; what `disk` cannot replay it refuses.
_CALLS = (
    "open,openat,openat2,creat,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,"
    "copy_file_range,sendfile,fsync,fdatasync,sync_file_range,syncfs,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,lseek"
)
_MAX_WRITE = 16 * 1024 * 1024  # bytes of one call that are printed: more than any test writes

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_WHOLE = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)")
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|-?\d+)<([^>]*)>(\(deleted\))?")

AVAILABLE = shutil.which("strace") is not None


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that did not fail. `begin` and `end` order all calls of a trace."""

    begin: int
    end: int
    name: str
    arguments: tuple[str, ...]
    result: int

    def number(self, place: int) -> int:
        return int(self.arguments[place], 0)

    def data(self, place: int) -> bytes:
        """A string argument."""
        text = self.arguments[place]
        assert text.startswith('"'), text
        assert text.endswith('"'), f"cut short: {self.name}"
        return _unescaped(text[1:-1])

    def path(self, place: int, *, at: int | None = None) -> Path:
        """A path argument, relative to the directory in argument `at`."""
        path = Path(_unescaped(self.arguments[place][1:-1]).decode())
        return path if at is None else self.opened(at) / path

    def descriptor(self, place: int) -> int:
        return int(self.arguments[place].partition("<")[0])

    def opened(self, place: int) -> Path:
        """The path of a descriptor argument; one that was deleted is nowhere."""
        match = _DESCRIPTOR.fullmatch(self.arguments[place])
        if match is None or match[2]:
            return Path("/deleted")
        return Path(_unescaped(match[1]).decode(errors="replace"))


def run(argv: Sequence[str], log: Path, *, cwd: Path) -> None:
    """Run a command that must succeed under strace, which reports to `log`."""
    flags = ["-f", "-qq", "-y", "-xx", "-s", str(_MAX_WRITE), "--seccomp-bpf"]
    traced = ["strace", *flags, "-e", f"trace={_CALLS}", "-e", "signal=none", "-o", str(log), *argv]
    done = subprocess.run(traced, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)


def read(log: Path, below: Sequence[Path]) -> Iterator[Call]:
    """The calls of a report that concern anything below these directories, by their end."""
    wanted = ["".join(f"\\x{byte:02x}" for byte in str(root).encode()) for root in below]
    begun: dict[str, tuple[int, str]] = {}
    with log.open() as lines:
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            assert match, line[:200]
            process, text = match.groups()
            begin = number
            resumed = _RESUMED.match(text)
            if text.endswith(_UNFINISHED):
                begun[process] = (number, text.removesuffix(_UNFINISHED))
                continue
            if resumed:
                begin, head = begun.pop(process)
                text = head + resumed[2]
            whole = _WHOLE.fullmatch(text)
            if whole is None or int(whole[3]) < 0 or not any(root in text for root in wanted):
                continue
            yield Call(begin, number, whole[1], tuple(whole[2].split(", ")), int(whole[3]))


def _unescaped(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
