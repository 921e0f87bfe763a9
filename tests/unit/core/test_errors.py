"""What errors say beyond what they were given."""

from __future__ import annotations

from furymesh.core.errors import DiskFullError


def test_a_full_disk_is_told_with_advice_and_kept_without() -> None:
    error = DiskFullError("no room for 5 MB in /data")
    assert str(error) == "no room for 5 MB in /data; free some space, then run this again"
    assert error.what == "no room for 5 MB in /data"
    assert str(DiskFullError("no room", "choose another disk")) == "no room; choose another disk"
