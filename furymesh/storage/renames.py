"""Renames that replace nothing, or swap two names: renameat2(2), and what comes near it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import cache
from pathlib import Path

from furymesh.core.errors import EnvironmentFault
from furymesh.storage.files import translating

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# What renameat2 says where the kernel or the file system lacks the flag.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})

_Name = str | Path


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename, or raise FileExistsError if `target` exists; never replaces it.

    Where the kernel cannot promise that, a file is linked to its new name (which
    fails on an existing one) and a directory moves onto a name that was claimed
    by an empty directory. Other failures raise EnvironmentFault.
    """
    try:
        with translating(target, "rename to"):
            rename_no_replace_in(None, source, target)
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, FileExistsError):
            raise fault.__cause__ from None
        raise


def rename_no_replace_in(
    directory: int | None, source: _Name, target: _Name, *, into: int | None = None
) -> None:
    """`rename_no_replace` of two names in an open directory, or `into` another; raises OSError."""
    other = directory if into is None else into
    if _renameat2(directory, source, target, _RENAME_NOREPLACE, other):
        return
    at = {"src_dir_fd": directory, "dst_dir_fd": other}
    if stat.S_ISDIR(os.stat(source, dir_fd=directory, follow_symlinks=False).st_mode):
        os.mkdir(target, dir_fd=other)
        try:
            os.rename(source, target, **at)
        except OSError:
            os.rmdir(target, dir_fd=other)
            raise
    else:
        os.link(source, target, **at, follow_symlinks=False)
        os.unlink(source, dir_fd=directory)


def rename_exchange(one: Path, other: Path) -> None:
    """Swap two names, atomically where the kernel can; raises EnvironmentFault.

    The fallback moves `other` aside first: for a moment it has no name, but
    every step can be undone by hand and nothing is lost.
    """
    with translating(other, "exchange"):
        rename_exchange_in(None, one, other)


def rename_exchange_in(directory: int | None, one: _Name, other: _Name) -> None:
    """`rename_exchange` of two names in an open directory; raises OSError."""
    if _renameat2(directory, one, other, _RENAME_EXCHANGE, directory):
        return
    at = {"src_dir_fd": directory, "dst_dir_fd": directory}
    above, name = os.path.split(other)
    aside = os.path.join(above, f".{name}.{os.urandom(4).hex()}.old")
    os.rename(other, aside, **at)
    try:
        os.rename(one, other, **at)
    except OSError:
        os.rename(aside, other, **at)
        raise
    os.rename(aside, one, **at)


def _renameat2(
    directory: int | None, source: _Name, target: _Name, flags: int, into: int | None
) -> bool:
    """Try renameat2(2); False where it is not offered, OSError where it fails."""
    function = _libc_renameat2()
    if function is None:
        return False
    before = _AT_FDCWD if directory is None else directory
    after = _AT_FDCWD if into is None else into
    if function(before, os.fsencode(source), after, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))


@cache
def _libc_renameat2() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        path, number = ctypes.c_char_p, ctypes.c_int
        function.argtypes = (number, path, number, path, ctypes.c_uint)
    return function
