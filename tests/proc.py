"""What /proc says of a process: of this one unless told which."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SELF = "self"


def memory(pid: int | str = SELF, kind: str = "VmRSS") -> int:
    """Bytes that are in memory now; `kind` RssAnon: without what is mapped of files."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) * 1024


def peak_memory(pid: int | str = SELF) -> int:
    """Bytes that were in memory at most."""
    return memory(pid, "VmHWM")


def cpu_seconds(pid: int | str = SELF) -> float:
    """Of one processor, that a process and its threads have had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int | str = SELF) -> int:
    """How many files and sockets are open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def open_files() -> list[str]:
    """What this process has open, by name, without the numbers of sockets."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0])
    return sorted(found)
