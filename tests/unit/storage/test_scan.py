import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import EnvironmentFault, NotFoundError, UsageError
from furymesh.core.layout import Entry, EntryKind
from furymesh.storage import scan as scanning
from furymesh.storage.scan import Facts, scan


def test_single_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    found = scan(path)
    assert found.path == path
    assert found.entries is None
    assert found.layout.single
    assert found.layout.plain_size == 5
    assert found.facts == (Facts.of(path.stat()),)
    assert not found.executable
    path.chmod(0o755)
    assert scan(path).executable


def test_folder_in_canonical_order(tmp_path: Path) -> None:
    for name in ("b", "a.b", "é", "a/z", "a/b/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "a/z").chmod(0o700)
    (tmp_path / "empty/inner").mkdir(parents=True)
    found = scan(tmp_path)
    assert found.entries == (
        Entry("a.b", EntryKind.FILE, 3),
        Entry("a/b/c", EntryKind.FILE, 5),
        Entry("a/z", EntryKind.EXECUTABLE, 3),
        Entry("b", EntryKind.FILE, 1),
        Entry("empty/inner", EntryKind.DIRECTORY, 0),
        Entry("é", EntryKind.FILE, 2),
    )
    assert found.layout.directories == ("empty/inner",)
    paths = [file.path for file in found.layout.files]
    assert found.facts == tuple(Facts.of((tmp_path / path).stat()) for path in paths)


def test_links_and_special_files_are_skipped_and_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "only-links").mkdir(parents=True)
    (root / "file").touch()
    (root / "only-links/a").symlink_to(tmp_path)
    (root / "link").symlink_to("file")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "sock"))
        found = scan(root)
    assert found.skipped == ("dangling", "link", "only-links/a", "pipe", "sock")
    assert [entry.path for entry in found.entries or ()] == ["file", "only-links"]


def test_a_link_named_by_the_user_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert scan(tmp_path / "link").path == tmp_path / "file"


def test_empty_folder(tmp_path: Path) -> None:
    found = scan(tmp_path)
    assert found.entries == ()
    assert found.layout.plain_size == 0


def test_what_cannot_be_shared(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for missing in (tmp_path / "none", tmp_path / "file" / "x"):
        with pytest.raises(NotFoundError, match="no file or folder"):
            scan(missing)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        scan(tmp_path / "pipe")


@pytest.mark.parametrize("name", [b"\xff", b"a\x1bb", b"NUL", b"dot."])
def test_names_that_others_would_refuse(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(UsageError, match="rename it first") as caught:
        scan(tmp_path)
    assert str(caught.value).isprintable()


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_ENTRIES", 2)
    for name in "ab":
        (tmp_path / name).touch()
    scan(tmp_path)
    (tmp_path / "c").touch()
    with pytest.raises(UsageError, match="more than 2 files"):
        scan(tmp_path)


def test_system_failures_are_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EnvironmentFault, match="permission denied"):
        scan(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    locked = tmp_path / "open" / "locked"
    locked.mkdir()
    real = os.scandir

    def scandir(path: Path) -> Any:
        # The modes of a file do not hold back root, as which tests may run.
        if path == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(EnvironmentFault, match=f"cannot read {locked}: permission denied"):
        scan(tmp_path)
