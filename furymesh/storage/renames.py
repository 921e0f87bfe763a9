"""Renames that replace nothing, or swap two names: renameat2(2), and what comes near it."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path

from furymesh.core.errors import EnvironmentFault
from furymesh.storage.files import translating

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# What renameat2 says where the kernel or the file system lacks the flag.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename, or raise FileExistsError if `target` exists; never replaces it.

    Where the kernel cannot promise that, a file is linked to its new name (which
    fails on an existing one) and a directory moves onto a name that was claimed
    by an empty directory. Other failures raise EnvironmentFault.
    """
    try:
        with translating(target, "rename to"):
            if _renameat2(source, target, _RENAME_NOREPLACE):
                return
            if source.is_dir() and not source.is_symlink():
                target.mkdir()
                try:
                    os.rename(source, target)
                except OSError:
                    target.rmdir()
                    raise
            else:
                os.link(source, target, follow_symlinks=False)
                os.unlink(source)
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, FileExistsError):
            raise fault.__cause__ from None
        raise


def rename_exchange(one: Path, other: Path) -> None:
    """Swap two names, atomically where the kernel can; raises EnvironmentFault.

    The fallback moves `other` aside first: for a moment it has no name, but
    every step can be undone by hand and nothing is lost.
    """
    with translating(other, "exchange"):
        if _renameat2(one, other, _RENAME_EXCHANGE):
            return
        aside = other.with_name(f".{other.name}.{os.urandom(4).hex()}.old")
        os.rename(other, aside)
        try:
            os.rename(one, other)
        except OSError:
            os.rename(aside, other)
            raise
        os.rename(aside, one)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Try renameat2(2); False where it is not offered, OSError where it fails."""
    function = _libc_renameat2()
    if function is None:
        return False
    arguments = (_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    if function(*arguments) == 0:
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
