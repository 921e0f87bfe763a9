"""Targets of folder sync: a lock that lies in a folder where others write."""

from __future__ import annotations

import hashlib
import os

from furymesh.storage.scan import Facts
from furymesh.sync import LOCK_NAME, LOG_NAME, IncomingFile, Status, TransferLockManager
from furymesh.sync.lock_format import FileState, Session, decode, encode, encode_file
from tests.fuzz.engine import Target
from tests.fuzz.material import BOOT, JSON, NAMES, place, put

NOW = 1_700_000_000.0
CONTENT = b"0123456789"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILES: list[IncomingFile] = [
    {"filename": name, "size": len(CONTENT), "original_hash": DIGEST}
    for name in ("done", "deep/half", "new")
]


def transfer_lock(data: bytes) -> None:
    """Whatever it says, only what is on the disk counts, and nothing else is touched."""
    root = place("transfer_lock")
    folder = root / "in"
    put(folder / "done", CONTENT[::-1])  # not what the lock says
    put(folder / "deep/half.part", CONTENT[:5])
    put(folder / LOCK_NAME, data)
    put(folder / LOG_NAME, b"")
    with TransferLockManager(folder, clock=lambda: NOW, boot_id=BOOT) as lock:
        loaded = lock.load_existing_lock()
        plan = lock.get_resume_plan(FILES)
    assert loaded or plan["action"] == "fresh_transfer"
    assert plan["completed_files"] == []
    assert all(name == "deep/half" and size <= 5 for name, size in plan["resume_files"])
    assert os.listdir(root) == ["in"]
    assert {*os.listdir(folder)} <= {"done", "deep", LOCK_NAME, LOG_NAME}
    assert (folder / "done").read_bytes() == CONTENT[::-1]
    assert (folder / LOG_NAME).read_text().removesuffix("\n").isprintable()
    session = decode(data)
    # What was read is written so that it reads the same again.
    assert (
        decode(encode(session, [encode_file(*file) for file in session.files.items()])) == session
    )


def _lock(boot: bytes = BOOT) -> bytes:
    files = {
        "done": FileState(
            Status.COMPLETED, 10, DIGEST, 10, DIGEST, "", "done_1", Facts(1, 2, 10, 3, 4)
        ),
        "deep/half": FileState(Status.IN_PROGRESS, 10, DIGEST, 4, "", "2024-01-01T12:00:00Z"),
        "new": FileState(Status.PENDING, 10, "", 0, "", ""),
    }
    session = Session(
        "c9a1d5a2-6f0e-4a53-b0c7-0123456789ab", NOW, "192.0.2.1", 30, boot.hex(), files
    )
    return encode(session, [encode_file(*file) for file in files.items()])


TARGETS = (
    Target(
        "transfer_lock",
        transfer_lock,
        lambda: {"here": _lock(), "rebooted": _lock(b"another boot id.")},
        (ValueError,),
        (
            *(*JSON, *NAMES, b"../", b"1e999", b"NaN", b"-1", b"1" * 5000, b"[" * 2000),
            *(b'"status":', b'"files":', b'"saved_as":', b'"facts":', b'"transferred_bytes":'),
            b'"transfer_warnings.log/x"',
            *(b'"done"', b'"deep/half"', b'"completed"', b'"in_progress"', b"0001-01-01T"),
        ),
    ),
)
