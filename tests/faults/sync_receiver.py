"""Receives a folder from itself, and can be killed: python -m tests.faults.sync_receiver.

Arguments are the folder and a seed. The number of bytes of every chunk that was
written is a line on stdout, in the moment it was.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from random import Random

from furymesh.sync import FileWriter, GroupCommit, IncomingFile, TransferLockManager

CHUNK = 16 * 1024


def source(seed: int) -> dict[str, bytes]:
    """Small files, a few of several chunks, an empty one."""
    rng = Random(seed)
    sizes = [rng.randrange(1, 3000) for _ in range(400)] + [0, CHUNK, 30 * CHUNK, 90 * CHUNK + 7]
    rng.shuffle(sizes)
    return {f"{n % 7}/deep/{n}.bin": rng.randbytes(size) for n, size in enumerate(sizes)}


def receive(folder: Path, files: dict[str, bytes]) -> None:
    listed: list[IncomingFile] = [
        {
            "filename": name,
            "size": len(data),
            "original_hash": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    ]
    lock = TransferLockManager(folder)
    plan = lock.get_resume_plan(listed) if lock.load_existing_lock() else None
    if plan is None or plan["action"] == "fresh_transfer":
        lock.create_lock_file("", listed, sum(map(len, files.values())))
    done = set(plan["completed_files"]) if plan else set()
    with GroupCommit(lock.folder) as commit:
        for name, data in files.items():
            if name in done:
                continue
            small = commit if len(data) < CHUNK else None
            writer = FileWriter(name, len(data), 0, lock, commit=small)
            writer.open_for_writing(lock.get_resume_bytes(name))
            while writer.needs_data(writer.written):
                count = writer.write_chunk(data[writer.written : writer.written + CHUNK])
                print(count, flush=True)
                if writer.error:
                    raise writer.error
    lock.cleanup_on_completion()


if __name__ == "__main__":
    receive(Path(sys.argv[1]), source(int(sys.argv[2])))
