"""The one boundary where errors of SSH and SFTP become errors of furymesh."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import asyncssh

from furymesh.core.errors import (
    DiskFullError,
    EnvironmentFault,
    FuryMeshError,
    HandshakeError,
    LinkClosedError,
    NotFoundError,
    PassphraseNeededError,
    ProtocolError,
    UnavailableError,
    UsageError,
)
from furymesh.core.paths import shown
from furymesh.sftp.options import Options

SSH_PORT = 22
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


# --- connecting ---------------------------------------------------------------


class UnknownHostError(HandshakeError):
    """No known_hosts has a key of this server.

    `line` would make it known, if `fingerprint` is the one that its owner tells.
    """

    def __init__(self, message: str, fingerprint: str, line: str) -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        self.line = line


class RefusedUserError(HandshakeError):
    """The server accepts neither the keys nor the password, if there was one."""

    def __init__(self, message: str, takes_password: bool) -> None:
        super().__init__(message)
        self.takes_password = takes_password


class HostKey(NamedTuple):
    """A host key that was not among those believed."""

    host: str
    address: str
    port: int
    key: asyncssh.SSHKey

    @property
    def name(self) -> str:
        """The server as known_hosts has it."""
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"

    @property
    def fingerprint(self) -> str:
        return f"{self.key.get_algorithm()} {self.key.get_fingerprint()}"

    def fault(self, what: str, options: Options) -> HandshakeError:
        port = None if self.port == SSH_PORT else self.port
        known = asyncssh.match_known_hosts(options.believed(), self.host, self.address, port)
        if known[0]:
            return HandshakeError(
                f"{what}: its host key is not the one in known_hosts but {self.fingerprint}:"
                " this may be another server; if its owner has changed the key, remove the"
                f" old one with `ssh-keygen -R '{shown(self.name)}'`"
            )
        ssh = "ssh" if port is None else f"ssh -p {port}"
        line = f"{self.name} {self.key.export_public_key().decode().strip()}"
        return UnknownHostError(
            f"{what}: its host key {self.fingerprint} is not known; if it is the right one,"
            f" add it to known_hosts, as `{ssh} {shown(self.host)}` does",
            self.fingerprint,
            line,
        )


@dataclass(slots=True)
class Seen:
    """What a server showed while connecting: the host key that was not believed."""

    host_key: HostKey | None = None
    takes_password: bool = False


@contextlib.contextmanager
def connecting(options: Options, seen: Seen) -> Iterator[None]:
    """Turn what connecting raises into a FuryMeshError."""
    what = f"cannot connect to {shown(options.host)}"
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        if seen.host_key:
            raise seen.host_key.fault(what, options) from error
        raise HandshakeError(
            f"{what}: {_reason(error)}; make sure that it is the right server"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise RefusedUserError(
            f"{what}: it refuses this user; check the name, the key and the password",
            seen.takes_password,
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise _key_fault(what, options, error) from error
    except asyncssh.ConfigParseError as error:
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


def _key_fault(what: str, options: Options, error: ValueError) -> UsageError:
    reason = _reason(error)
    sealed = reason.startswith(("Passphrase", "Unable to decrypt"))
    if isinstance(error, asyncssh.KeyImportError) and not sealed:
        return UsageError(f"{what}: {reason}")
    if options.passphrase is None:
        return PassphraseNeededError(
            f"{what}: the key is sealed with a passphrase; give the key to the agent with `ssh-add`"
        )
    return PassphraseNeededError(f"{what}: the passphrase does not open the key; try another")


def _reason(error: Exception) -> str:
    """A server's own words, on one line and not too many."""
    reason = error.reason if isinstance(error, asyncssh.Error) else str(error)
    return shown(" ".join(reason.split())[:MAX_REASON]) or "it gives no reason"
