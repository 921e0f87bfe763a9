"""The messages of folder sync: their limits, to bytes and back; see `codec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from furymesh.core.ids import ID_SIZE
from furymesh.wire import messages as m
from furymesh.wire.coding import encoder, need, text
from furymesh.wire.pb import furymesh_pb2 as pb

DIGEST_SIZE = ID_SIZE  # SHA-256
MAX_BATCH = 1024 * 1024  # bytes that one ArchiveData announces: as much as one call sends
MAX_RUNS = 1024  # files in it: a kibibyte of each, and below that it may be less
MAX_ENTRIES = 1024  # in one page; with names of ordinary length a message holds as many
MAX_FILES = 4_000_000  # entries in one session; each costs the server some memory
MAX_FILE_SIZE = 2**62  # more than any file system holds
MAX_CLIENT_ID = 256  # bytes; it is the name of a folder, of 64 characters at most
MAX_NOTICE = 1024  # bytes of a text for people
MAX_PLACE = 2**16  # above any queue
MAX_PAUSE = 2**32  # seconds: no client waits for a century
PERMISSIONS = 0o777  # no setuid bit travels


def _archive_info(p: pb.ArchiveInfo) -> m.ArchiveInfo:
    paths, sizes, mtimes, modes = tuple(p.paths), tuple(p.sizes), tuple(p.mtimes), tuple(p.modes)
    count = len(paths)
    need(count <= MAX_ENTRIES, "too many entries in one ArchiveInfo")
    need(len(sizes) == len(mtimes) == len(modes) == count, "ArchiveInfo has gaps")
    need(len(p.digests) == count * DIGEST_SIZE, "ArchiveInfo has gaps")
    need(max(sizes, default=0) <= MAX_FILE_SIZE, "a file is impossibly large")
    need(max(modes, default=0) <= PERMISSIONS, "a mode is more than permissions")
    return m.ArchiveInfo(paths, sizes, mtimes, modes, p.digests, p.last)


def _archive_tasks(p: pb.ArchiveTasks) -> m.ArchiveTasks:
    files, offsets = _numbers(p.files, MAX_ENTRIES), tuple(p.offsets)
    unhashed, later = _numbers(p.unhashed, MAX_ENTRIES), _numbers(p.later, MAX_ENTRIES)
    need(len(offsets) == len(files), "ArchiveTasks has gaps")
    need(p.copied <= MAX_ENTRIES, "ArchiveTasks counts too many")
    need(max(offsets, default=0) <= MAX_FILE_SIZE, "an offset is impossibly large")
    return m.ArchiveTasks(files, offsets, unhashed, later, p.copied, p.again)


def _archive_data(p: pb.ArchiveData) -> m.ArchiveData:
    files, offsets, lengths = _numbers(p.files, MAX_RUNS), tuple(p.offsets), tuple(p.lengths)
    need(len(offsets) == len(lengths) == len(files), "ArchiveData has gaps")
    need(len(p.digests) == len(files) * DIGEST_SIZE, "ArchiveData has gaps")
    need(0 < p.length <= MAX_BATCH, "data length out of range")
    need(sum(lengths) == p.length and min(lengths) > 0, "ArchiveData does not add up")
    need(max(offsets) <= MAX_FILE_SIZE, "an offset is impossibly large")
    return m.ArchiveData(files, offsets, lengths, p.digests, p.length)


def _numbers(values: Any, limit: int) -> tuple[int, ...]:
    need(len(values) <= limit, "too many files in one message")
    numbers = tuple(values)
    need(max(numbers, default=0) < MAX_FILES, "file number out of range")
    need(len(set(numbers)) == len(numbers), "a file twice in one message")
    return numbers


def _number(value: int) -> int:
    need(value < MAX_FILES, "file number out of range")
    return value


def _place(value: int) -> int:
    need(0 < value < MAX_PLACE, "place out of range")
    return value


def _batches(value: int) -> int:
    need(value > 0, "ArchiveWritten of nothing")
    return value


def _paths(values: Any) -> tuple[str, ...]:
    need(0 < len(values) <= MAX_ENTRIES, "ArchiveExtras of nothing, or of too much")
    return tuple(values)


def _next_sync(p: pb.NextSync) -> m.NextSync:
    need(p.seconds < MAX_PAUSE, "the next sync is too far away")
    return m.NextSync(p.seconds, p.removed, text(p.notice, MAX_NOTICE))


DECODERS: dict[str, Callable[[Any], m.Message]] = {
    "identify": lambda p: m.Identify(text(p.client_id, MAX_CLIENT_ID), p.mirror, p.force),
    "busy": lambda p: m.Busy(_place(p.place)),
    "ready": lambda p: m.Ready(),
    "archive_info": _archive_info,
    "archive_tasks": _archive_tasks,
    "archive_data": _archive_data,
    "archive_skip": lambda p: m.ArchiveSkip(_numbers(p.files, MAX_ENTRIES)),
    "archive_written": lambda p: m.ArchiveWritten(_batches(p.batches)),
    "archive_failed": lambda p: m.ArchiveFailed(_number(p.file), text(p.detail, MAX_NOTICE)),
    "archive_extras": lambda p: m.ArchiveExtras(_paths(p.paths)),
    "archive_gone": lambda p: m.ArchiveGone(_numbers(p.places, MAX_ENTRIES)),
    "next_sync": _next_sync,
}

ENCODERS: dict[type, Callable[[Any], bytes]] = {
    m.Identify: encoder("identify", pb.Identify),
    m.Busy: encoder("busy", pb.Busy),
    m.Ready: encoder("ready", pb.Ready),
    m.ArchiveInfo: encoder("archive_info", pb.ArchiveInfo),
    m.ArchiveTasks: encoder("archive_tasks", pb.ArchiveTasks),
    m.ArchiveData: encoder("archive_data", pb.ArchiveData),
    m.ArchiveSkip: encoder("archive_skip", pb.ArchiveSkip),
    m.ArchiveWritten: encoder("archive_written", pb.ArchiveWritten),
    m.ArchiveFailed: encoder("archive_failed", pb.ArchiveFailed, detail=MAX_NOTICE),
    m.ArchiveExtras: encoder("archive_extras", pb.ArchiveExtras),
    m.ArchiveGone: encoder("archive_gone", pb.ArchiveGone),
    m.NextSync: encoder("next_sync", pb.NextSync, notice=MAX_NOTICE),
}
