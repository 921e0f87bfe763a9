"""The one boundary where errors of SSH and SFTP become errors of furymesh."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import asyncssh

from furymesh.core.errors import (
    DiskFullError,
    EnvironmentFault,
    FuryMeshError,
    HandshakeError,
    LinkClosedError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
    UsageError,
)
from furymesh.core.paths import shown

MAX_REASON = 200  # characters of a server's message that are repeated

_GONE = (
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    OSError,
)
_FULL = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)


@contextlib.contextmanager
def remotely(host: str, path: str, action: str) -> Iterator[None]:
    """Turn what a request to a server raises inside into a FuryMeshError.

    The message reads "cannot <action> <path> on <host>: <reason>; <advice>".
    """
    what = f"cannot {action} {shown(path)} on {shown(host)}"
    try:
        yield
    except asyncssh.SFTPError as error:
        raise _translated(error, what) from error
    except _GONE as error:
        raise _lost(what) from error
    except (asyncssh.Error, UnicodeError, ValueError) as error:
        raise ProtocolError(f"{what}: {_reason(error)}") from error


def _translated(error: asyncssh.SFTPError, what: str) -> FuryMeshError:
    if isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)):
        return _lost(what)
    if isinstance(error, _FULL):
        return disk_full(what)
    if isinstance(error, asyncssh.SFTPBadMessage):
        return ProtocolError(f"{what}: it sent what SFTP forbids; try another server")
    if isinstance(error, (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)):
        return NotFoundError(f"{what}: no such file or directory; check the path")
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return EnvironmentFault(f"{what}: permission denied; check its permissions there")
    return EnvironmentFault(f"{what}: {_reason(error)}; see the server's log")


def disk_full(what: str) -> DiskFullError:
    """The error for a server's disk; `what` names the operation, path and host."""
    return DiskFullError(f"{what}: the disk there is full", "free some space there, then try again")


def _lost(what: str) -> LinkClosedError:
    return LinkClosedError(f"{what}: the connection is lost; run this again with resume to go on")


@contextlib.contextmanager
def connecting(host: str) -> Iterator[None]:
    """Turn what connecting raises into a FuryMeshError."""
    what = f"cannot connect to {shown(host)}"
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise HandshakeError(
            f"{what}: its host key is not the one in known_hosts, or not in it;"
            " make sure that it is the right server, then add its key there"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise HandshakeError(
            f"{what}: it refuses this user; check the name, the key and the password"
        ) from error
    except (asyncssh.KeyImportError, asyncssh.ConfigParseError) as error:
        raise UsageError(f"{what}: {_reason(error)}") from error
    except TimeoutError as error:
        raise UnavailableError(f"{what}: no answer in time; try again later") from error
    except (asyncssh.ConnectionLost, *_GONE[:2]) as error:
        raise UnavailableError(f"{what}: it closes the connection; try again later") from error
    except OSError as error:
        # The event loop's own text repeats the address; unknown names have negative numbers.
        known = error.errno is not None and error.errno > 0
        reason = os.strerror(error.errno or 0) if known else str(error.strerror or error)
        raise UnavailableError(
            f"{what}: {reason.lower()}; check the address, or try later"
        ) from error
    except (asyncssh.Error, ValueError) as error:
        raise HandshakeError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """A server's own words, on one line and not too many."""
    reason = error.reason if isinstance(error, asyncssh.Error) else str(error)
    return shown(" ".join(reason.split())[:MAX_REASON]) or "it gives no reason"
