"""The messages of folder sync as bytes: what goes through, and what is refused."""

from __future__ import annotations

import pytest

from furymesh.core.errors import ProtocolError
from furymesh.wire import codec, sync_codec
from furymesh.wire import messages as m
from furymesh.wire.pb import furymesh_pb2 as pb
from furymesh.wire.sync_codec import (
    DIGEST_SIZE,
    MAX_BATCH,
    MAX_CLIENT_ID,
    MAX_ENTRIES,
    MAX_FILE_SIZE,
    MAX_FILES,
    MAX_NOTICE,
    MAX_PAUSE,
    MAX_PLACE,
    MAX_RUNS,
)

DIGESTS = bytes(range(2 * DIGEST_SIZE))

EXAMPLES = [
    m.Identify("laptop"),
    m.Identify("läptop", mirror=True, force=True),
    m.Busy(1),
    m.Busy(MAX_PLACE - 1),
    m.Ready(),
    m.ArchiveInfo(),
    m.ArchiveInfo(("a", "b/ü"), (0, MAX_FILE_SIZE), (-1, 2**62), (0o777, 0), DIGESTS, True),
    m.ArchiveTasks(),
    m.ArchiveTasks((0, MAX_FILES - 1), (0, MAX_FILE_SIZE), (3,), (4,), 5, True),
    m.ArchiveData((0, 1), (0, 9), (MAX_BATCH - 1, 1), DIGESTS, MAX_BATCH),
    m.ArchiveSkip((1, 2)),
    m.ArchiveWritten(1),
    m.ArchiveFailed(7, "the disk is full"),
    m.ArchiveExtras(("a", "b")),
    m.ArchiveGone(()),
    m.ArchiveGone((0, 1)),
    m.NextSync(300),
    m.NextSync(MAX_PAUSE - 1, 4, "nothing was removed"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_wire(message: m.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


def test_texts_for_people_are_cut_to_fit() -> None:
    failed = codec.decode(codec.encode(m.ArchiveFailed(0, "ü" * MAX_NOTICE)))
    assert failed == m.ArchiveFailed(0, "ü" * (MAX_NOTICE // 2))
    assert codec.decode(codec.encode(m.NextSync(0, notice="\udc80"))) == m.NextSync(0, notice="?")


def test_a_full_page_of_ordinary_names_fits_a_message() -> None:
    count = MAX_ENTRIES
    names = tuple(f"photos/{n:05}" for n in range(count))
    sizes, times = (10_240,) * count, (1_700_000_000_000_000_000,) * count
    raw = codec.encode(
        m.ArchiveInfo(names, sizes, times, (0o644,) * count, bytes(DIGEST_SIZE * count))
    )
    assert len(raw) <= codec.MAX_FRAME
    runs = range(MAX_RUNS)
    raw = codec.encode(
        m.ArchiveData(
            tuple(MAX_FILES - MAX_RUNS + n for n in runs),
            (0,) * MAX_RUNS,
            (MAX_BATCH // MAX_RUNS,) * MAX_RUNS,
            bytes(DIGEST_SIZE * MAX_RUNS),
            MAX_BATCH,
        )
    )
    assert len(raw) <= codec.MAX_FRAME


def frame(**body: object) -> bytes:
    return bytes(pb.Frame(**body).SerializeToString())  # type: ignore[arg-type]


def entries(count: int, **changes: object) -> bytes:
    columns: dict[str, object] = {
        "paths": ["f"] * count,
        "sizes": [1] * count,
        "mtimes": [0] * count,
        "modes": [0o644] * count,
        "digests": bytes(DIGEST_SIZE * count),
    }
    return frame(archive_info=pb.ArchiveInfo(**(columns | changes)))  # type: ignore[arg-type]


def runs(count: int, **changes: object) -> bytes:
    columns: dict[str, object] = {
        "files": list(range(count)),
        "offsets": [0] * count,
        "lengths": [1] * count,
        "digests": bytes(DIGEST_SIZE * count),
        "length": count,
    }
    return frame(archive_data=pb.ArchiveData(**(columns | changes)))  # type: ignore[arg-type]


def tasks(**columns: object) -> bytes:
    return frame(archive_tasks=pb.ArchiveTasks(**columns))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (frame(identify=pb.Identify(client_id="x" * (MAX_CLIENT_ID + 1))), "text too long"),
        (frame(busy=pb.Busy(place=0)), "place out of range"),
        (frame(busy=pb.Busy(place=MAX_PLACE)), "place out of range"),
        (entries(MAX_ENTRIES + 1), "too many entries"),
        (entries(2, sizes=[1]), "has gaps"),
        (entries(2, mtimes=[1]), "has gaps"),
        (entries(2, modes=[1]), "has gaps"),
        (entries(2, digests=bytes(DIGEST_SIZE * 2 - 1)), "has gaps"),
        (entries(1, sizes=[MAX_FILE_SIZE + 1]), "impossibly large"),
        (entries(1, modes=[0o4755]), "more than permissions"),
        (tasks(files=[0], offsets=[]), "has gaps"),
        (tasks(files=[MAX_FILES], offsets=[0]), "out of range"),
        (tasks(files=[0, 0], offsets=[0, 0]), "a file twice"),
        (tasks(files=[0], offsets=[MAX_FILE_SIZE + 1]), "impossibly large"),
        (tasks(files=range(MAX_ENTRIES + 1), offsets=[0] * (MAX_ENTRIES + 1)), "too many files"),
        (tasks(unhashed=range(MAX_ENTRIES + 1)), "too many files"),
        (tasks(later=range(MAX_ENTRIES + 1)), "too many files"),
        (tasks(copied=MAX_ENTRIES + 1), "counts too many"),
        (runs(0), "out of range"),
        (runs(0, length=1), "does not add up"),
        (runs(MAX_RUNS + 1), "too many files"),
        (runs(2, offsets=[0]), "has gaps"),
        (runs(2, lengths=[2]), "has gaps"),
        (runs(2, digests=bytes(DIGEST_SIZE)), "has gaps"),
        (runs(1, length=2), "does not add up"),
        (runs(2, lengths=[0, 2]), "does not add up"),
        (runs(1, lengths=[MAX_BATCH + 1], length=MAX_BATCH + 1), "out of range"),
        (runs(1, offsets=[MAX_FILE_SIZE + 1]), "impossibly large"),
        (runs(2, files=[1, 1]), "a file twice"),
        (frame(archive_skip=pb.ArchiveSkip(files=[MAX_FILES])), "out of range"),
        (frame(archive_written=pb.ArchiveWritten()), "of nothing"),
        (frame(archive_failed=pb.ArchiveFailed(file=MAX_FILES)), "out of range"),
        (frame(archive_failed=pb.ArchiveFailed(detail="x" * (MAX_NOTICE + 1))), "too long"),
        (frame(archive_extras=pb.ArchiveExtras()), "of nothing"),
        (frame(archive_extras=pb.ArchiveExtras(paths=["a"] * (MAX_ENTRIES + 1))), "too much"),
        (frame(archive_gone=pb.ArchiveGone(places=[0, 0])), "a file twice"),
        (frame(next_sync=pb.NextSync(seconds=MAX_PAUSE)), "too far away"),
        (frame(next_sync=pb.NextSync(notice="x" * (MAX_NOTICE + 1))), "too long"),
    ],
)
def test_what_breaks_a_limit_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        codec.decode(raw)


def test_the_limits_stay_within_a_message() -> None:
    assert sync_codec.MAX_BATCH == codec.MAX_PIECE  # what a writer and a reader have room for
