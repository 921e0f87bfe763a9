"""Unfinished downloads as people and scripts see them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from furymesh.cli.output import MIN_WIDTH, can_print, percent, plural, width
from furymesh.core.bitfield import strip, to_bytes
from furymesh.core.paths import shown
from furymesh.core.units import format_size

if TYPE_CHECKING:
    from furymesh.core.snapshot import ResumeMeta
    from furymesh.storage.resume_reader import Damaged, Summary

USUAL_WIDTH = 80
# One box a chunk while that is a few lines; beyond, a strip tells more.
MAX_BOX_LINES = 8
MAX_STRIP_LINES = 4
BOX = 3  # columns of [X]
SHADES = " ░▒▓█"
PLAIN_SHADES = " .:+#"  # for terminals whose encoding lacks the blocks


def display_name(meta: ResumeMeta) -> str:
    """The name of the download, or of the file it becomes; unescaped."""
    return meta.name or meta.output.rstrip("/").rpartition("/")[2] or "(no name yet)"


def size_text(meta: ResumeMeta) -> str:
    return "unknown" if meta.size is None else format_size(meta.size)


def progress_percent(summary: Summary) -> int:
    """Whole percent of the chunks that are here; 0 while nobody told how many there are."""
    total = summary.meta.chunks_total
    return 0 if total is None else percent(summary.chunks_done, total)


def summary_record(summary: Summary) -> dict[str, Any]:
    """One download of `list-resume --json`; `progress` in percent, the time in ISO 8601."""
    updated = datetime.fromtimestamp(summary.updated_at, UTC)
    return {
        "file_id": summary.meta.file_id.hex(),
        "name": display_name(summary.meta),
        "size": summary.meta.size,
        "chunks_total": summary.meta.chunks_total,
        "chunks_done": summary.chunks_done,
        "progress": progress_percent(summary),
        "updated_at": updated.isoformat(timespec="seconds"),
    }


def damaged_record(item: Damaged) -> dict[str, Any]:
    """The same keys for resume data that cannot be read, and why."""
    return {
        "file_id": item.file_id.hex(),
        "name": None,
        "size": None,
        "chunks_total": None,
        "chunks_done": 0,
        "progress": 0,
        "updated_at": None,
        "damaged": item.reason,
    }


def detail_record(summary: Summary) -> dict[str, Any]:
    """`show-resume --json`: the keys of the list, and what the download is about.

    `have` is the chunk bitmap in hex: chunk i is bit i % 8, least significant
    first, of byte i // 8.
    """
    meta = summary.meta
    return {
        **summary_record(summary),
        "chunk_size": meta.chunk_size,
        "chunks_doubtful": summary.doubtful.bit_count(),
        "have": to_bytes(summary.have, meta.chunk_count).hex(),
        "output": meta.output,
        "part": meta.part,
        "encrypted": meta.key is not None,
    }


def detail_lines(summary: Summary, *, places: str = "") -> Iterator[str]:
    """The lines of `show-resume`; `places` are options to repeat in the last one."""
    meta = summary.meta
    total = "unknown" if meta.chunks_total is None else str(meta.chunks_total)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.updated_at))
    yield f"Resume Data for file {meta.file_id.hex()}:"
    yield f"File Name: {shown(display_name(meta))}"
    yield f"File Size: {size_text(meta)}"
    yield f"Total Chunks: {total}"
    yield f"Completed Chunks: {summary.chunks_done} ({progress_percent(summary)}%)"
    if summary.doubtful:
        yield f"To Be Checked Again: {plural(summary.doubtful.bit_count(), 'chunk')}"
    yield f"Last Updated: {when}"
    if meta.chunk_count:
        yield "Chunk Status:"
        yield from chunk_status(summary.have, meta.chunk_count, width() or USUAL_WIDTH)
    if meta.part:
        yield f"Kept In: {shown(meta.part)}"
    if meta.key is not None:
        yield "Encrypted: yes, the key is in the resume data"
    yield f"Continue With: furymesh resume --file-id {meta.file_id.hex()[:16]}{places}"


def chunk_status(have: int, chunk_count: int, columns: int) -> Iterator[str]:
    """Which chunks are here: a box each, or a density strip when they are many."""
    columns = max(columns, MIN_WIDTH)
    boxes = columns // BOX
    if chunk_count <= boxes * MAX_BOX_LINES:
        cells = ["[X]" if have >> chunk & 1 else "[_]" for chunk in range(chunk_count)]
        for start in range(0, chunk_count, boxes):
            yield "".join(cells[start : start + boxes])
        return
    room = columns - 2
    lines = min(MAX_STRIP_LINES, chunk_count // room)
    density = strip(have, chunk_count, room * lines)
    shades = SHADES
    if not can_print(SHADES):
        shades = PLAIN_SHADES
        density = density.translate(str.maketrans(SHADES, PLAIN_SHADES))
    for start in range(0, room * lines, room):
        yield f"[{density[start : start + room]}]"
    each = -(-chunk_count // (room * lines))
    yield (
        f"{shades[4]} all here  {shades[3]}{shades[2]}{shades[1]} some  blank: none"
        f"  (a column is about {plural(each, 'chunk')})"
    )
