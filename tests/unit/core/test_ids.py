"""What stands for a share where its id must not be seen."""

from __future__ import annotations

from furymesh.core.ids import FileId, discovery_tag, info_hash


def test_info_hash_tells_neither_tag_nor_file_id() -> None:
    file_id = FileId(bytes(32))
    tag = discovery_tag(file_id)
    assert len(info_hash(tag)) == 20
    assert info_hash(tag) not in (tag[:20], file_id[:20])
    assert info_hash(tag) == info_hash(discovery_tag(FileId(bytes(32))))
