"""Names that came from elsewhere: which are refused, how the rest are shown.

A manifest's file table is untrusted and must mean the same tree on every
system, so a name is refused when it could escape the folder, when some file
system would change it, or when two names would land on one file there. What
is refused for some is refused for all: a share is whole everywhere or nowhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from furymesh.core.errors import InvalidManifestError

MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common file system
MAX_PATH_BYTES = 4096  # PATH_MAX on Linux
MAX_COMPONENTS = 64  # deeper trees cost an open per level and exist only to hurt
# A suggested name must leave room for what is put after it: "_12", an id, ".part".
MAX_SAFE_NAME_BYTES = 220
MAX_SHOWN = 200  # characters of a refused name that a message repeats

_ILLEGAL = re.compile(
    "[/\\\\\x00-\x1f\x7f-\x9f"  # separators and control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what reorders the text around it
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff]"  # lone surrogates: bytes that are not UTF-8
)
_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [port + digit for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)


def shown(text: str) -> str:
    """`text` safe for a terminal or a log: whatever does not print is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def check_path(path: str) -> tuple[str, ...]:
    """The components of a relative path joined by "/"; raises InvalidManifestError."""
    fault = _path_fault(path)
    if fault:
        raise InvalidManifestError(f"refused path {_quoted(path)}: {fault}")
    return tuple(path.split("/"))


def check_table(paths: Iterable[str]) -> None:
    """Check each path, and that together they make one tree on any file system.

    Refused are duplicates, a file or empty directory that others lie below, and
    names that differ only in letter case or Unicode composition, at any depth.
    Raises InvalidManifestError.
    """
    leaves: set[str] = set()
    parents: set[str] = set()
    spellings: dict[str, str] = {}
    for path in paths:
        components = check_path(path)
        if path in leaves:
            raise InvalidManifestError(f"refused path {_quoted(path)}: it is listed twice")
        leaves.add(path)
        _note_spelling(path, spellings)
        # Upwards until a directory that an earlier path has already brought in.
        for depth in range(len(components) - 1, 0, -1):
            parent = "/".join(components[:depth])
            if parent in parents:
                break
            parents.add(parent)
            _note_spelling(parent, spellings)
    for path in sorted(leaves & parents):
        raise InvalidManifestError(
            f"refused path {_quoted(path)}: other paths use it as a directory"
        )


def safe_name(hint: str, fallback: str) -> str:
    """A usable, visible file name made from an untrusted hint, or `fallback`.

    Only the last component counts; illegal characters become "_", leading dots
    go (nobody else decides that a file is hidden), and long names are cut to
    220 bytes before their extension.
    """
    last = re.split(r"[/\\]", hint.rstrip("/\\"))[-1]
    name = _ILLEGAL.sub("_", last).lstrip(". ").rstrip(". ")
    # Again after the cut, which may leave a device's name of "con", many spaces, "x".
    name = _defused(_cut(_defused(name)))
    return fallback if component_fault(name) or not name.strip("_") else name


def _defused(name: str) -> str:
    """`name`, with "_" in front if it would lead to a drive or a device."""
    if name.partition(".")[0].rstrip().upper() in _DEVICES or _DRIVE.match(name):
        return "_" + name.replace(":", "_")
    return name


def _cut(name: str) -> str:
    if len(name.encode()) <= MAX_SAFE_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > 16:
        stem, dot, extension = name, "", ""
    room = MAX_SAFE_NAME_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") + dot + extension


def component_fault(name: str) -> str | None:
    """Why this component is refused, in words that end the message; None if it is not."""
    if name in ("", ".", ".."):
        return "a component is empty, . or .."
    illegal = _ILLEGAL.search(name)
    if illegal:
        return f"the character U+{ord(illegal.group()):04X} is not allowed"
    if len(name.encode()) > MAX_COMPONENT_BYTES:
        return f"a component is longer than {MAX_COMPONENT_BYTES} bytes"
    if name[-1] in ". ":
        return "a component ends in a dot or a space"
    if _DRIVE.match(name):
        return "a component starts with a drive letter"
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        return "a component is the name of a Windows device"
    return None


def _path_fault(path: str) -> str | None:
    if path.startswith("/"):
        return "it is absolute"
    components = path.split("/")
    if len(components) > MAX_COMPONENTS:
        return f"it has more than {MAX_COMPONENTS} components"
    for component in components:
        fault = component_fault(component)
        if fault:
            return fault
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    return None


def _note_spelling(path: str, spellings: dict[str, str]) -> None:
    other = spellings.setdefault(folded(path), path)
    if other != path:
        raise InvalidManifestError(
            f"refused path {_quoted(path)}: it collides with {_quoted(other)}"
            " where letter case or Unicode form is ignored"
        )


def folded(text: str) -> str:
    """Equal for canonical caseless matches (Unicode Standard, section 3.13, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def _quoted(text: str) -> str:
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return f'"{shown(cut)}"'
