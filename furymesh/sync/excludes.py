"""Which files of an archive stay at home: patterns as in .gitignore.

    *.tmp       every file or folder of such a name, at any depth
    /cache      only at the top of the archive
    build/      folders only, with all that is in them
    doc/*.pdf   a slash within: seen from the top
    a/**/b      any number of folders between
    !keep.tmp   takes back what an earlier pattern excluded

The last pattern that matches decides. What lies in an excluded folder is not
looked at, so it cannot be taken back.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from furymesh.core.errors import UsageError
from furymesh.core.paths import shown

MAX_PATTERNS = 1000  # each costs a regular expression for each file
MAX_PATTERN = 1000  # characters


class Excludes:
    """A list of patterns; an empty one excludes nothing."""

    def __init__(self, patterns: Sequence[str] = (), hidden: str = "") -> None:
        """`hidden` is the path of a folder that stays at home whatever the patterns say.

        Raises UsageError, naming the pattern that is none.
        """
        if len(patterns) > MAX_PATTERNS:
            raise UsageError(f"{len(patterns)} patterns to exclude are too many: {MAX_PATTERNS}")
        self._patterns = patterns
        self._hidden = hidden
        self._spec = _compiled(list(map(_checked, patterns))) if patterns else None

    def hiding(self, path: str) -> Excludes:
        """The same, and this folder."""
        return Excludes(self._patterns, path)

    def file(self, path: str) -> bool:
        """Whether a file is excluded by its own path."""
        return self._spec is not None and self._spec.match_file(path)

    def directory(self, path: str) -> bool:
        """Whether a folder is excluded by its own path, with all that is in it."""
        if path == self._hidden:
            return True
        return self._spec is not None and self._spec.match_file(path + "/")

    def covers(self, path: str) -> bool:
        """Whether a file is excluded by its own path or by that of a folder it is in."""
        if self._spec is None and not self._hidden:
            return False
        components = path.split("/")
        above = ("/".join(components[:depth]) for depth in range(1, len(components)))
        return any(map(self.directory, above)) or self.file(path)


def _compiled(patterns: list[str]) -> GitIgnoreSpec:
    with warnings.catch_warnings():
        # What future expressions may mean by "[[" is nothing to whoever writes patterns.
        warnings.simplefilter("ignore", FutureWarning)
        return GitIgnoreSpec.from_lines(patterns)


def _checked(pattern: str) -> str:
    if len(pattern) <= MAX_PATTERN:
        try:
            (compiled,) = _compiled([pattern]).patterns
        except (ValueError, re.error):
            compiled = None
        # One that can match nothing is a blank, a comment or a range that runs backwards.
        if compiled is not None and compiled.include is not None:
            return pattern
    raise UsageError(
        f'"{shown(pattern[:80])}" is not a pattern to exclude: write *.tmp, /cache or build/'
    )


NOTHING = Excludes()
