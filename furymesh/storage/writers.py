"""Files that somebody may be writing to without leaving a trace in their facts.

The kernel sets the times of a file before each write(2), but of writes through
a mapping it sees only the first to each page; the next ones, until that page
has gone to disk, leave nothing. So facts that are taken while nobody has the
file open for writing show every later write, and others prove nothing.

Who has a file open is asked for by a read lease (fcntl(2)), which is refused
while there is a writer, and given back at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from pathlib import Path

from furymesh.core.layout import Layout
from furymesh.storage.files import open_beneath, open_root, translating
from furymesh.storage.scan import Facts


def proven(root: Path, layout: Layout, facts: tuple[Facts, ...]) -> tuple[Facts, ...]:
    """The facts (one for each file below `root`), but none of files that have a writer.

    Those get facts that no file ever has. Raises EnvironmentFault.
    """
    top = root.parent if layout.single else root
    root_fd = open_root(top)
    try:
        return tuple(
            fact.unproven() if _has_writer(root_fd, _names(root, layout, number), top) else fact
            for number, fact in enumerate(facts)
        )
    finally:
        os.close(root_fd)


def _names(root: Path, layout: Layout, number: int) -> tuple[str, ...]:
    return (root.name,) if layout.single else layout.components(number)


def _has_writer(root_fd: int, names: tuple[str, ...], top: Path) -> bool:
    with translating(top.joinpath(*names), "read"):
        try:
            fd = open_beneath(root_fd, names, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False  # reading it will tell
        try:
            return refuses_lease(fd)
        finally:
            os.close(fd)


def refuses_lease(fd: int) -> bool:
    """Whether a process has the file of `fd`, a descriptor for reading, open for writing.

    False too where the system does not say: leases are for the owner of a file,
    and not on every file system.
    """
    try:
        # Somebody who opens it within these microseconds waits for us to let go, and
        # the signal that tells us so must not be the default one, which kills.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except AttributeError:  # not Linux
        return False
    except OSError as error:
        return error.errno == errno.EAGAIN
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
