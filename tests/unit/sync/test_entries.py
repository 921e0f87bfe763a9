from __future__ import annotations

import pytest

from furymesh.core.errors import InvalidManifestError
from furymesh.core.units import MAX_SIZE
from furymesh.sync.entries import FileInfo, Troubles, info_fault, kept_mode, split

INFO = FileInfo("a/b.txt", 3, 5, 0o644, b"h" * 32)


def test_modes_lend_no_rights_and_let_the_owner_read() -> None:
    assert kept_mode(0o100644) == 0o644
    assert kept_mode(0o107777) == 0o777
    assert kept_mode(0o100000) == 0o400


def test_a_file_as_a_client_may_describe_it() -> None:
    for info in (
        INFO,
        INFO._replace(sha256=b""),
        INFO._replace(size=0),
        INFO._replace(size=MAX_SIZE),
        INFO._replace(mtime_ns=-1),
        INFO._replace(mtime_ns=2**63 - 1),
        INFO._replace(path="ä b/ü.part.txt"),
    ):
        assert info_fault(info) is None


@pytest.mark.parametrize(
    "info",
    [
        INFO._replace(path=path)
        for path in (
            *("", "/a", "../a", "a/../b", "a//b", "a/", ".", "a\0b", "a\nb", "a\\b", "con", "C:a"),
            *("a\udc80", "x" * 256, "/".join("d" * 65)),
            *(".furymesh-trash/2020-01-01/a", ".FURYMESH-Trash", ".transfer_lock.json"),
            *("transfer_warnings.log",),
        )
    ]
    + [
        INFO._replace(size=-1),
        INFO._replace(size=MAX_SIZE + 1),
        INFO._replace(mtime_ns=2**63),
        INFO._replace(mtime_ns=-(2**63) - 1),
        INFO._replace(mode=0o4755),
        INFO._replace(mode=0),
        INFO._replace(mode=-1),
        INFO._replace(sha256=b"h" * 31),
    ],
    ids=repr,
)
def test_what_a_client_says_is_refused_in_one_line(info: FileInfo) -> None:
    fault = info_fault(info)
    assert fault
    assert fault.isprintable()


def test_paths_are_split_only_where_they_lead_below() -> None:
    assert split("a") == ((), "a")
    assert split("a/b/c") == (("a", "b"), "c")
    for path in ("", "..", ".", "a/..", "../a", "/a", "a//b", "a/./b", "a/"):
        with pytest.raises(InvalidManifestError):
            split(path)


def test_troubles_stay_readable_however_many_there_are() -> None:
    troubles = Troubles()
    for number in range(1000):
        troubles.leave_out(f"link{number}", "a link is not followed")
    troubles.add("bad\x1b[31m", "changes while it is read")
    assert (troubles.count, troubles.left_out) == (1, 1000)
    assert troubles.lines() == ["not sent, changes while it is read: bad\\x1b[31m"]
    assert troubles.notes() == [
        "left out, a link is not followed: link0, link1, link2, link3, link4 and 995 more"
    ]
