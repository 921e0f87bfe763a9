import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.errors import InvalidManifestError
from furymesh.core.paths import (
    MAX_SAFE_NAME_BYTES,
    check_path,
    check_table,
    safe_name,
    shown,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
# Long, and of what is replaced, cut off or put in front.
LONG_NAMES = st.lists(
    st.sampled_from(["C:", "con", " ", ".", "/", "\ud800", "a", "x" * 99, "é" * 50, "日" * 70]),
    min_size=1,
    max_size=10,
).map("".join)
NAMES = st.text("aAbB\u00e9e\u0301ß", min_size=1, max_size=3)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def accepted(paths: list[str]) -> bool:
    try:
        check_table(paths)
    except InvalidManifestError:
        return False
    return True


def folded(text: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def slow_accepted(paths: list[str]) -> bool:
    """Every pair of prefixes of all paths, compared one by one."""
    nodes = [
        ("/".join(parts[:depth]), depth == len(parts), number)
        for number, parts in enumerate(path.split("/") for path in paths)
        for depth in range(1, len(parts) + 1)
    ]
    for one, one_is_leaf, one_number in nodes:
        for other, other_is_leaf, other_number in nodes:
            if one_number == other_number:
                continue
            if one != other and folded(one) == folded(other):
                return False
            if one == other and (one_is_leaf or other_is_leaf):
                return False
    return True


@given(st.lists(PATHS, max_size=6))
def test_table_check_equals_the_slow_one(paths: list[str]) -> None:
    assert accepted(paths) == slow_accepted(paths)


@given(ANY_TEXT)
def test_accepted_path_stays_inside_and_is_utf8(path: str) -> None:
    try:
        components = check_path(path)
    except InvalidManifestError as error:
        reason = str(error)
        assert reason.isprintable()
        return
    assert "/".join(components) == path
    path.encode()
    for component in components:
        assert check_path(component) == (component,)
        assert component not in ("", ".", "..")
        assert not set(component) & set("/\\\0")


@given(ANY_TEXT | LONG_NAMES)
def test_safe_name_is_always_usable(hint: str) -> None:
    name = safe_name(hint, "fallback")
    assert check_path(name) == (name,)
    assert not name.startswith(".")
    assert len(name.encode()) <= MAX_SAFE_NAME_BYTES
    assert safe_name(name, "fallback") == name


@given(ANY_TEXT)
def test_shown_text_is_printable_and_stable(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(shown(text)) == shown(text)


@pytest.mark.parametrize("depth", [63, 64])
def test_deep_trees_up_to_the_limit(depth: int) -> None:
    check_table(["/".join(["d"] * (depth - 1) + [name]) for name in ("x", "y")])
