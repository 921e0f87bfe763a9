"""furymesh: peer-to-peer chunked swarm downloads, encrypted and resumed after anything.

The library's front door. Functions that move data are async and run under
trio; every failure is a `FuryMeshError`. docs/library.md has examples.

Names are imported when they are first used, so that commands start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from furymesh.core.errors import (
        AlreadyRunningError,
        ConfigError,
        DiskFullError,
        EnvironmentFault,
        FuryMeshError,
        NotFoundError,
        PassphraseError,
        PassphraseNeededError,
        UnavailableError,
        UsageError,
        VerificationError,
        WrongKeyError,
    )
    from furymesh.core.link import Address, Link, Mirror
    from furymesh.node.config import Config, load_config
    from furymesh.node.face import Shared, Verified, get, resume, share, unshare, verify
    from furymesh.node.service import Node
    from furymesh.swarm.events import Event, Progress, Result

__version__ = "0.1.0"

_HOMES = {
    "furymesh.core.errors": (
        "AlreadyRunningError",
        "ConfigError",
        "DiskFullError",
        "EnvironmentFault",
        "FuryMeshError",
        "NotFoundError",
        "PassphraseError",
        "PassphraseNeededError",
        "UnavailableError",
        "UsageError",
        "VerificationError",
        "WrongKeyError",
    ),
    "furymesh.core.link": ("Address", "Link", "Mirror"),
    "furymesh.node.config": ("Config", "load_config"),
    "furymesh.node.face": (
        "Shared",
        "Verified",
        "get",
        "resume",
        "share",
        "unshare",
        "verify",
    ),
    "furymesh.node.service": ("Node",),
    "furymesh.swarm.events": ("Event", "Progress", "Result"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Address",
    "AlreadyRunningError",
    "Config",
    "ConfigError",
    "DiskFullError",
    "EnvironmentFault",
    "Event",
    "FuryMeshError",
    "Link",
    "Mirror",
    "Node",
    "NotFoundError",
    "PassphraseError",
    "PassphraseNeededError",
    "Progress",
    "Result",
    "Shared",
    "UnavailableError",
    "UsageError",
    "VerificationError",
    "Verified",
    "WrongKeyError",
    "__version__",
    "get",
    "load_config",
    "resume",
    "share",
    "unshare",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
