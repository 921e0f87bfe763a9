"""Every error furymesh raises, sorted by who is at fault.

One root, five families. The message of each is one plain line that names what
is wrong and what to do next; the command line prints it as it is and maps the
class to an exit code in one table (``furymesh.cli.exits``).
"""

from __future__ import annotations


class FuryMeshError(Exception):
    """Root of all errors that furymesh raises on purpose."""


# --- the caller ---------------------------------------------------------------


class UsageError(FuryMeshError):
    """The caller asked for something malformed: a link, an id, a size, an address."""


class ConfigError(UsageError):
    """The configuration file is unreadable, or a key in it is unknown or bad."""


class AmbiguousIdError(UsageError):
    """An id prefix matches more than one share or download."""


class NotFoundError(FuryMeshError):
    """Nothing here goes by that name: no such share, resume data or path."""


class AlreadyRunningError(FuryMeshError):
    """Another process holds the lock of this download or this node."""


class WrongKeyError(FuryMeshError):
    """The content key does not open this encrypted share."""


class PassphraseError(FuryMeshError):
    """The passphrase does not open the keys kept here."""


class PassphraseNeededError(UsageError):
    """The keys kept here are sealed, and nobody was there to give the passphrase."""


# --- a peer -------------------------------------------------------------------


class PeerError(FuryMeshError):
    """The remote end misbehaved; the link to it is closed."""


class ProtocolError(PeerError):
    """A peer sent bytes that the protocol forbids (its bug or its malice)."""


class HandshakeError(PeerError):
    """The secure link could not be made: wrong key, wrong identity, refused."""


# --- nobody has it ------------------------------------------------------------


class UnavailableError(FuryMeshError):
    """No reachable peer has what is needed; progress is kept."""


class LinkClosedError(UnavailableError):
    """The link went away: closed by either end or broken by the network."""


# --- data on this machine -----------------------------------------------------


class LocalDataError(FuryMeshError):
    """Data on this disk is not what it should be."""


class InvalidManifestError(LocalDataError):
    """Manifest bytes break a rule of the format or do not match their digest."""


class DamagedResumeDataError(LocalDataError):
    """Resume data is unreadable; the bytes of the download may still be good."""


class SourceChangedError(LocalDataError):
    """A shared file is not the one that was hashed any more."""


class VerificationError(LocalDataError):
    """Finished content does not have the digest that was promised."""


# --- the environment ----------------------------------------------------------


class EnvironmentFault(FuryMeshError):
    """The operating system refused: permissions, ports, paths, descriptors."""


class DiskFullError(EnvironmentFault):
    """No room on the disk, or not enough above the configured reserve.

    `what` is the message without its advice, for whoever can wait for room.
    """

    def __init__(self, what: str, advice: str = "free some space, then run this again") -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


# --- our own ------------------------------------------------------------------


class InternalError(FuryMeshError):
    """A bug of furymesh that was contained; worth a report."""


class IllegalStateError(AssertionError):
    """furymesh broke one of its own rules: a bug here, never a peer's doing."""
