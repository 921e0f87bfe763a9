import pytest

from furymesh.core.errors import InvalidManifestError
from furymesh.core.paths import (
    MAX_SAFE_NAME_BYTES,
    check_path,
    check_table,
    safe_name,
    shown,
)

DEVICES = ["CON", "prn", "Aux", "NUL", "COM1", "com9", "LPT1", "lpt³", "CONIN$", "conout$"]

REFUSED_COMPONENTS = [
    *["", ".", "..", "/", "a\\b", "\\", "..\\x", "C:", "c:evil", "Z:\\x"],
    *[f"a{chr(code)}b" for code in range(32)],
    *["\x7f", "a\x80", "a\x9b31m", "\u2028", "a\u2029"],
    *["a\u202egpj.exe", "\u2066a", "a\u200f", "\u061ca"],
    *["a.", "a ", "a. ", " ", ". ", "...", "a..."],
    *["\ud800", "a\udcff", "x" * 256, "é" * 128],
    *DEVICES,
    *[f"{name}.txt" for name in DEVICES],
    *["nul.tar.gz", "CON .txt", "aux  .c"],
]

ACCEPTED_COMPONENTS = [
    *["a", "a b", ".hidden", "..a", "a..b", "...a", "-rf", "~", "$HOME", "ab:c", "1:2"],
    *["console", "com", "comx", "COM10", "lpt", "nul-1", "aux_", "null.txt"],
    *["é", "日本語", "👩\u200d👩\u200d👧", "x" * 255, "<script>", "a\u00a0b", "*?"],
]


@pytest.mark.parametrize("name", REFUSED_COMPONENTS, ids=ascii)
def test_refuses_component_wherever_it_stands(name: str) -> None:
    for path in (name, f"a/{name}", f"{name}/a", f"a/{name}/b"):
        with pytest.raises(InvalidManifestError, match="refused path"):
            check_path(path)


@pytest.mark.parametrize("name", ACCEPTED_COMPONENTS, ids=ascii)
def test_accepts_component(name: str) -> None:
    assert check_path(f"a/{name}/b") == ("a", name, "b")


@pytest.mark.parametrize(
    "path",
    [
        *["/etc/passwd", "//a", "a//b", "a/", "../a", "a/../b", "a/./b"],
        *["/".join("a" * 65), "/".join(["x" * 255] * 17)],
    ],
    ids=lambda path: path[:20],
)
def test_refuses_path(path: str) -> None:
    with pytest.raises(InvalidManifestError):
        check_path(path)


def test_accepts_a_path_as_long_as_systems_do() -> None:
    components = ["x" * 255] * 15 + ["x" * 254, "x"]
    assert check_path("/".join(components)) == tuple(components)
    with pytest.raises(InvalidManifestError, match="longer than 4096 bytes"):
        check_path("/".join([*components[:-1], "xx"]))


def test_refusal_shows_the_name_escaped_and_cut() -> None:
    with pytest.raises(InvalidManifestError) as caught:
        check_path("a\x1b[2J\n" + "z" * 10_000)
    message = str(caught.value)
    assert "\x1b" not in message
    assert "\n" not in message
    assert r"\x1b[2J\n" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["a", "a"], "twice"),
        (["a", "a/b"], "directory"),
        (["a", "a/b/c"], "directory"),
        (["a/b", "a"], "directory"),
        (["a/b/c", "a/b"], "directory"),
        (["README", "readme"], "collides"),
        (["a/X", "A/y"], "collides"),
        (["b/a/X", "b/A"], "collides"),
        (["caf\u00e9", "cafe\u0301"], "collides"),
        (["CAF\u00c9/x", "cafe\u0301/y"], "collides"),
        (["straße", "STRASSE"], "collides"),
        (["\u212b", "\u00e5"], "collides"),
        (["\u03b1\u0345", "\u03b1\u03b9"], "collides"),
    ],
)
def test_refuses_paths_that_are_one_somewhere(paths: list[str], reason: str) -> None:
    for order in (paths, paths[::-1]):
        with pytest.raises(InvalidManifestError, match=reason):
            check_table(order)


def test_accepts_a_tree() -> None:
    check_table(["a/b/c", "a/b/d", "a/e", "a.b/c", "ab", "z/y/x", "é/f", "é/g"])
    check_table([])


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("film.mkv", "film.mkv"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\evil.exe", "evil.exe"),
        ("../../..", "fallback"),
        ("dir/", "dir"),
        (".bashrc", "bashrc"),
        ("..", "fallback"),
        ("", "fallback"),
        (" . ", "fallback"),
        ("a\x1b[31m\n", "a_[31m_"),
        ("\udcff\udcfe", "fallback"),
        ("photo\u202egnp.exe", "photo_gnp.exe"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("C:x", "_C_x"),
        ("name. . ", "name"),
    ],
)
def test_safe_name(hint: str, expected: str) -> None:
    assert safe_name(hint, "fallback") == expected


def test_safe_name_keeps_the_extension_of_a_long_name() -> None:
    name = safe_name("é" * 300 + ".tar", "fallback")
    assert name.endswith("é.tar")
    assert MAX_SAFE_NAME_BYTES - 1 <= len(name.encode()) <= MAX_SAFE_NAME_BYTES
    assert len(safe_name("a." + "b" * 300, "fallback").encode()) == MAX_SAFE_NAME_BYTES


@pytest.mark.parametrize(
    "hint",
    [
        "C:" + "x" * 300,
        "C:" + "日" * 100,
        "C:" + "é" * 109,  # 220 bytes before anything is put in front
        "nul." + "é" * 300,
        "con" + " " * 300 + "x",
        "con" + " " * 300 + ".x",
        "aux" + " " * 300 + "x.tar",
        "x" * 215 + "👩.jpeg",
        "a" + "\u0301" * 200 + ".é",
        "C:\ud800" + "é" * 200,
    ],
    ids=lambda hint: ascii(hint)[:12],
)
def test_safe_name_of_what_is_long_and_bad_at_once(hint: str) -> None:
    name = safe_name(hint, "fallback")
    assert check_path(name) == (name,)
    assert name != "fallback"
    assert len(name.encode()) <= MAX_SAFE_NAME_BYTES
    assert safe_name(name, "fallback") == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        ("a\u202eb", r"a\u202eb"),
        ("\udc80", r"\udc80"),
        ("a\r\nb", r"a\r\nb"),
    ],
)
def test_shown(text: str, expected: str) -> None:
    assert shown(text) == expected
