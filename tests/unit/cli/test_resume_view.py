"""Unfinished downloads as people and scripts see them."""

from __future__ import annotations

import sys
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from furymesh.cli.resume_view import (
    chunk_status,
    damaged_record,
    detail_lines,
    detail_record,
    summary_record,
)
from furymesh.core.bitfield import from_bytes, mask_of
from furymesh.core.ids import FileId
from furymesh.core.snapshot import ResumeMeta
from furymesh.storage.resume_reader import Damaged, Summary

FILE_ID = FileId(bytes.fromhex("3f7b8a1c2d9e4f5a6b7c8d9e0f1a2b3c" * 2))
UPDATED = 1_741_534_245.0


def summary(have: int = 0b11111, *, doubtful: int = 0, **changes: Any) -> Summary:
    values: dict[str, Any] = {
        "file_id": FILE_ID,
        "name": "file.txt",
        "output": "/d/file.txt",
        "part": "/d/file.txt.3f7b8a1c.part",
        "created_at": 0.0,
        "size": 1_200_000,
        "chunk_size": 131_072,
        "chunks_total": 10,
    }
    meta = ResumeMeta(**{**values, **changes})
    return Summary(Path("/r"), meta, have, doubtful, UPDATED)


def test_the_documented_form() -> None:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(UPDATED))
    assert list(detail_lines(summary()))[:8] == [
        f"Resume Data for file {FILE_ID.hex()}:",
        "File Name: file.txt",
        "File Size: 1.2 MB",
        "Total Chunks: 10",
        "Completed Chunks: 5 (50%)",
        f"Last Updated: {when}",
        "Chunk Status:",
        "[X][X][X][X][X][_][_][_][_][_]",
    ]


def test_the_last_line_can_be_pasted() -> None:
    last = list(detail_lines(summary(), places=" --data-dir d"))[-1]
    assert last == "Continue With: furymesh resume --file-id 3f7b8a1c2d9e4f5a --data-dir d"


def test_what_is_not_known_yet_and_what_is_doubtful() -> None:
    unknown = list(detail_lines(summary(0, size=None, chunk_size=None, chunks_total=None)))
    assert "File Size: unknown" in unknown
    assert "Total Chunks: unknown" in unknown
    assert "Completed Chunks: 0 (0%)" in unknown
    assert "Chunk Status:" not in unknown
    doubted = list(detail_lines(summary(doubtful=0b1100000)))
    assert "To Be Checked Again: 2 chunks" in doubted


def test_hostile_names_are_escaped() -> None:
    text = "\n".join(detail_lines(summary(name="a\x1b[2J", part="/d/\u202e")))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_no_key_in_any_form() -> None:
    secret = bytes(range(32))
    item = summary(key=secret)
    text = "\n".join(detail_lines(item)) + repr(detail_record(item)) + repr(summary_record(item))
    assert secret.hex() not in text
    assert "Encrypted: yes" in text


@pytest.mark.parametrize("columns", [40, 80, 133])
@pytest.mark.parametrize("chunks", [1, 26, 27, 208, 209, 2_000, 262_144])
def test_every_line_fits(columns: int, chunks: int) -> None:
    lines = list(chunk_status((1 << chunks) // 3, chunks, columns))
    assert len(lines) <= 10
    assert max(map(len, lines[:-1]), default=0) <= columns


def test_a_strip_tells_density_with_a_legend() -> None:
    lines = list(chunk_status(mask_of(range(1_000)), 2_000, 80))
    assert lines[0] == f"[{'█' * 78}]"
    assert lines[-2] == f"[{' ' * 78}]"
    assert lines[-1].startswith("█ all here  ▓▒░ some  blank: none")


def test_a_strip_where_blocks_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), "ascii"))
    assert "".join(chunk_status(mask_of(range(0, 2_000, 2)), 2_000, 80)).isascii()


def test_json_of_the_list() -> None:
    assert summary_record(summary()) == {
        "file_id": FILE_ID.hex(),
        "name": "file.txt",
        "size": 1_200_000,
        "chunks_total": 10,
        "chunks_done": 5,
        "progress": 50,
        "updated_at": "2025-03-09T15:30:45+00:00",
    }


def test_json_of_damaged_data_has_the_same_keys() -> None:
    record = damaged_record(Damaged(Path("/r"), FILE_ID, "cut short"))
    assert record.keys() - {"damaged"} == summary_record(summary()).keys()


def test_json_of_the_detail_carries_the_bitmap() -> None:
    record = detail_record(summary(0b1000000001))
    assert from_bytes(bytes.fromhex(record["have"]), 10) == 0b1000000001
    assert record["part"] == "/d/file.txt.3f7b8a1c.part"
