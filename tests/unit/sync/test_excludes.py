from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.errors import UsageError
from furymesh.sync.excludes import MAX_PATTERN, MAX_PATTERNS, NOTHING, Excludes


@pytest.mark.parametrize(
    ("pattern", "excluded", "kept"),
    [
        ("*.tmp", ["a.tmp", "d/a.tmp", "x.tmp/in"], ["a.tmpx", "tmp"]),
        ("/cache", ["cache", "cache/x"], ["d/cache"]),
        ("build/", ["build/x", "d/build/x/y"], ["build"]),
        ("doc/*.pdf", ["doc/a.pdf"], ["doc/x/a.pdf", "a/doc/a.pdf"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["b", "x/a/b"]),
        ("[0-9].txt", ["1.txt"], ["a.txt"]),
        ("?.c", ["a.c"], ["ab.c"]),
    ],
)
def test_patterns_mean_what_they_do_in_gitignore(
    pattern: str, excluded: list[str], kept: list[str]
) -> None:
    excludes = Excludes([pattern])
    assert [path for path in excluded if not excludes.covers(path)] == []
    assert [path for path in kept if excludes.covers(path)] == []


def test_the_last_pattern_that_matches_decides() -> None:
    excludes = Excludes(["*.log", "!keep.log"])
    assert excludes.covers("a.log")
    assert not excludes.covers("keep.log")
    assert Excludes(["!keep.log", "*.log"]).covers("keep.log")


def test_nothing_in_an_excluded_folder_is_taken_back() -> None:
    assert Excludes(["build/", "!build/keep"]).covers("build/keep")


def test_folders_are_excluded_as_folders() -> None:
    excludes = Excludes(["build/"])
    assert excludes.directory("build")
    assert not excludes.file("build")


def test_no_pattern_excludes_nothing() -> None:
    for excludes in (NOTHING, Excludes(["matches-no-file"])):
        assert not excludes.covers("a/b")
        assert not excludes.file("a")
        assert not excludes.directory("a")


@pytest.mark.parametrize(
    "pattern", ["", "  ", "# remark", "/", "!", "[z-a]", "a" * (MAX_PATTERN + 1), "\x1b["]
)
def test_what_is_no_pattern_is_said_in_one_line(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a pattern to exclude") as raised:
        Excludes(["*.o", pattern])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200


def test_too_many_patterns_are_refused() -> None:
    Excludes(["*.o"] * MAX_PATTERNS)
    with pytest.raises(UsageError, match="too many"):
        Excludes(["*.o"] * (MAX_PATTERNS + 1))


@settings(deadline=None)
@given(st.lists(st.text("ab*?[]!-/\\# .^:") | st.text(), max_size=3))
def test_any_text_is_a_pattern_or_refused(patterns: list[str]) -> None:
    """And the library's warnings, which are errors here, do not come out."""
    with contextlib.suppress(UsageError):
        Excludes(patterns)
