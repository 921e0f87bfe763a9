"""Which paths may be received, and what a file is called until it is whole.

Always true: no path that is let in is a file of the transfer's own, and none is
the part of another. By itself a part is called ``name.part``, as documented, so
names that end like that are refused. With *distinct* parts it is called
``name.1f2e3d4c.part`` after a digest of the name: then every ``x.part`` of a user
is a file like any other, and only what was made to look like a part is refused.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from furymesh.core.errors import InvalidManifestError
from furymesh.core.paths import MAX_COMPONENTS, MAX_PATH_BYTES, check_path, folded, shown
from furymesh.storage.part_names import MAX_NAME_BYTES, fitting_name

LOCK_NAME = ".transfer_lock.json"
LOG_NAME = "transfer_warnings.log"
PART_SUFFIX = ".part"
OWN_PREFIX = ".furymesh-"  # of whatever else furymesh keeps in a folder: its trash, its index
# Checked paths: more than a client may have announced before they are written.
KEPT_PATHS = 8192
_DIGEST_DIGITS = 8
LONGEST_CHARACTER = 4  # bytes; a name that is cut may lose one less than that

Parents = tuple[str, ...]


class Place(NamedTuple):
    """Where a file lies: its directory, its name there, and its name until it is whole."""

    parents: Parents
    name: str
    part: str


@lru_cache(KEPT_PATHS)
def place_of(filename: str, distinct_parts: bool = False) -> Place:
    """The place of a file that may be received.

    Raises InvalidManifestError for a path that leads elsewhere, that other
    systems would change, or that is a name of the transfer's own files.
    """
    above, slash, name = filename.rpartition("/")
    # Of thousands of files in a directory only the names are looked at.
    if len(filename) <= MAX_PATH_BYTES // LONGEST_CHARACTER:
        try:
            parents = _checked(above, distinct_parts) if slash else ()
            if parents and len(parents) < MAX_COMPONENTS:
                _check(name, distinct_parts, in_root=False)
                return Place(parents, name, part_name(name, distinct_parts))
        except InvalidManifestError:
            pass  # of which part it was is of no interest
    *directories, name = _check(filename, distinct_parts)
    return Place(tuple(directories), name, part_name(name, distinct_parts))


@lru_cache(KEPT_PATHS)
def _checked(above: str, distinct_parts: bool) -> Parents:
    return _check(above, distinct_parts)


def _check(path: str, distinct_parts: bool, *, in_root: bool = True) -> Parents:
    components = check_path(path)
    if is_reserved(path) if in_root else is_distinct_part(path):
        raise InvalidManifestError(f'refused path "{shown(path)}": transfers use that name')
    if not distinct_parts and any(map(_is_plain_part, components)):
        raise InvalidManifestError(
            f'refused path "{shown(path)}": "{PART_SUFFIX}" ends names of unfinished files'
        )
    return components


def is_reserved(filename: str) -> bool:
    """Whether a path below the folder is a file of the transfer's own, never of its content."""
    first = folded(filename.partition("/")[0])
    return (
        first in (LOG_NAME, LOCK_NAME)
        or first.startswith((OWN_PREFIX, f".{LOCK_NAME}."))  # a lock that is being written
        or any(map(is_distinct_part, filename.split("/")))
    )


def part_name(name: str, distinct: bool = False) -> str:
    """What a file is called until it is whole: ``name.part``, or with a digest in between.

    A digest also keeps apart what would be equal once it is cut to fit.
    """
    if not distinct and len(name.encode()) <= MAX_NAME_BYTES - len(PART_SUFFIX):
        return name + PART_SUFFIX
    return fitting_name(name, f".{_digest(name)}{PART_SUFFIX}")


def is_distinct_part(component: str) -> bool:
    """Whether this is the part of some name, on any file system."""
    if not _is_plain_part(component):
        return False
    stem, _, digest = component[: -len(PART_SUFFIX)].rpartition(".")
    if len(digest) != _DIGEST_DIGITS or not stem:
        return False
    # Of a name that was cut the digest cannot be told.
    cut = len(component.encode()) > MAX_NAME_BYTES - LONGEST_CHARACTER
    return cut or folded(digest) == _digest(stem)


def _is_plain_part(component: str) -> bool:
    return folded(component[-len(PART_SUFFIX) :]) == PART_SUFFIX


def _digest(name: str) -> str:
    """Equal for names that some file systems take for one."""
    return sha256(folded(name).encode()).hexdigest()[:_DIGEST_DIGITS]
