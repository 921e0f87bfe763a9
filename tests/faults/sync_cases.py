"""Receives files on a disk that can be told to fail: python -m tests.faults.sync_cases.

A script: it reads orders, a JSON object a line, and answers each by a line. An order
names one of the functions here, the folder it works in, and a fault; the function runs
in a fork, and its answer is what it returns.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from furymesh.core.errors import FuryMeshError
from furymesh.sync import FileWriter, GroupCommit, IncomingFile, TransferLockManager
from furymesh.sync.group_commit import FEW_FILES

CHUNK = 1000
DATA = bytes(range(200)) * 10
DIGEST = hashlib.sha256(DATA).hexdigest()

Arm = Callable[[], None]


def source(seed: int = 0) -> dict[str, bytes]:
    """Small files in two directories, and some of several chunks."""
    rng = Random(seed)
    sizes = [rng.randrange(1, CHUNK) for _ in range(2 + FEW_FILES)] + [0, 3 * CHUNK, 2 * CHUNK + 1]
    return {f"{n % 2}/deep/{n}.bin": rng.randbytes(size) for n, size in enumerate(sizes)}


def listed(files: dict[str, bytes]) -> list[IncomingFile]:
    return [
        {
            "filename": name,
            "size": len(data),
            "original_hash": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    ]


def receive(
    folder: Path,
    files: dict[str, bytes],
    arm: Arm = lambda: None,
    boot_id: bytes | None = None,
) -> list[str]:
    """A whole session, as a server has it; returns what went wrong for good."""
    arm()
    lock = TransferLockManager(folder, boot_id=boot_id)
    try:
        plan = lock.get_resume_plan(listed(files)) if lock.load_existing_lock() else None
        if plan is None or plan["action"] == "fresh_transfer":
            lock.create_lock_file("", listed(files), sum(map(len, files.values())))
        done = plan["completed_files"] if plan else []
        commit = GroupCommit(lock.folder)
        writers = []
        for name in [name for name in files if name not in done]:
            size = len(files[name])
            group = commit if size < CHUNK else None
            writer = FileWriter(name, size, 0, lock, overwrite_mode=True, commit=group)
            writer.open_for_writing(lock.get_resume_bytes(name))
            writers.append(writer)
            for _ in range(20):
                if not writer.needs_data(writer.written):
                    break
                writer.write_chunk(files[name][writer.written : writer.written + CHUNK])
                lock.flush()
            if len(writers) == 2:
                commit.commit()  # few files, one by one; the others together
        commit.commit()
        lock.flush()
        errors = [str(writer.error) for writer in writers if not writer.is_complete]
        if not errors:
            lock.cleanup_on_completion()
        lock.close()
    except FuryMeshError as error:
        return [str(error)]
    return errors


def session(folder: Path, arm: Arm) -> list[str]:
    return receive(folder, source(), arm)


def _two_halves(folder: Path) -> tuple[TransferLockManager, FileWriter, FileWriter]:
    lock = TransferLockManager(folder)
    files = {"a": DATA, "b": DATA}
    lock.create_lock_file("", listed(files), 2 * len(DATA))
    a, b = (FileWriter(name, len(DATA), 0, lock) for name in files)
    for writer in (a, b):
        writer.write_chunk(DATA[:CHUNK])
    return lock, a, b


def _state(lock: TransferLockManager, name: str) -> list[Any]:
    state = lock.get_state(name)
    assert state is not None
    return [state.status, state.transferred_bytes]


def flush(folder: Path, arm: Arm) -> dict[str, Any]:
    """The disk loses one of two parts, as is found out when the lock is written."""
    lock, a, b = _two_halves(folder)
    arm()
    lock.flush()
    answer: dict[str, Any] = {"states": sorted(_state(lock, name) for name in "ab")}
    lost, other = (a, b) if _state(lock, "a")[1] == 0 else (b, a)
    answer["part"] = lost.part_file.exists()
    answer["rest"] = [other.write_chunk(DATA[CHUNK:]), other.is_complete]
    answer["next"] = [lost.write_chunk(DATA[CHUNK:]), lost.written, str(lost.error)]
    answer["again"] = [lost.write_chunk(DATA), lost.is_complete]
    return answer


def update(folder: Path, arm: Arm) -> list[Any]:
    """The same, found out by the update after a chunk of that file."""
    now = 0.0
    lock = TransferLockManager(folder, clock=lambda: now)
    lock.create_lock_file("", listed({"a": DATA}), len(DATA))
    writer = FileWriter("a", len(DATA), 0, lock)
    now = 10.0
    arm()
    return [writer.write_chunk(DATA[:CHUNK]), writer.written, str(writer.error)]


def alone(folder: Path, arm: Arm) -> dict[str, Any]:
    """A file that comes by itself, and asks again after the error."""
    lock = TransferLockManager(folder)
    lock.create_lock_file("", listed({"a": DATA}), len(DATA))
    writer = FileWriter("a", len(DATA), 0, lock)
    arm()
    writer.write_chunk(DATA)
    answer: dict[str, Any] = {
        "complete": writer.is_complete,
        "written": writer.written,
        "error": str(writer.error),
        "retries": writer.retries,
        "state": _state(lock, "a"),
        "names": sorted(name for name in os.listdir(folder) if name.startswith("a")),
    }
    if writer.needs_data(0):
        writer.write_chunk(DATA)
    else:
        writer.complete_file()
    answer["then"] = [writer.is_complete, writer.error and str(writer.error)]
    return answer


def group(folder: Path, arm: Arm) -> list[Any]:
    """Files that are synced together, one of them in a directory of its own."""
    lock = TransferLockManager(folder)
    files = {f"{n}/{n}": DATA[:CHUNK] for n in range(2 * FEW_FILES)}
    lock.create_lock_file("", listed(files), CHUNK * len(files))
    commit = GroupCommit(lock.folder)
    writers = [FileWriter(name, CHUNK, 0, lock, commit=commit) for name in files]
    for writer in writers:
        writer.write_chunk(DATA[:CHUNK])
    arm()
    commit.commit()
    return [[writer.is_complete, writer.written, str(writer.error)] for writer in writers]


def give_up(folder: Path, arm: Arm) -> list[Any]:
    """A disk that loses whatever it is given."""
    lock = TransferLockManager(folder)
    lock.create_lock_file("", listed({"a": DATA}), len(DATA))
    writer = FileWriter("a", len(DATA), 0, lock)
    sent = 0
    while writer.needs_data(0):
        arm()
        sent += writer.write_chunk(DATA)
    return [sent // len(DATA), writer.has_failed, *_state(lock, "a")]


def resume(folder: Path, arm: Arm) -> dict[str, Any]:
    """Two parts are taken up; the disk fails while the first is looked at."""
    lock = _two_halves(folder)[0]
    lock.close()
    lock = TransferLockManager(folder)
    assert lock.load_existing_lock()
    writers = [FileWriter(name, len(DATA), 0, lock) for name in "ab"]
    for writer in writers:
        writer.open_for_writing(lock.get_resume_bytes(writer.filename))
    arm()
    first = [writer.write_chunk(DATA[CHUNK:]) for writer in writers]
    written = [writer.written for writer in writers]
    for writer in writers:
        writer.write_chunk(DATA[writer.written :])
    return {"first": first, "written": written, "done": [w.is_complete for w in writers]}


def load(folder: Path, arm: Arm) -> dict[str, Any]:
    """The lock is read again; what the plan says if it could not be."""
    lock = _two_halves(folder)[0]
    lock.close()
    lock = TransferLockManager(folder)
    assert lock.folder.root_fd
    arm()
    answer: dict[str, Any] = {}
    try:
        answer["loaded"] = lock.load_existing_lock()
    except FuryMeshError as error:
        answer["error"] = str(error)
    answer["parts"] = sorted(name for name in os.listdir(folder) if name.endswith(".part"))
    return answer


def stale_parts(folder: Path, arm: Arm) -> list[Any]:
    """Parts of an older session, in two directories, are to go when another begins."""
    for name in ("1/a", "2/b"):
        (folder / name).parent.mkdir()
        (folder / f"{name}.part").write_bytes(b"old")
    files = {"1/a": DATA, "2/b": DATA}
    lock = TransferLockManager(folder)
    assert lock.folder.root_fd
    arm()
    lock.create_lock_file("", listed(files), 2 * len(DATA))
    parts = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.part"))
    writers = [FileWriter(name, len(DATA), 0, lock) for name in files]
    return [parts, [writer.write_chunk(DATA) for writer in writers]]


CASES: dict[str, Callable[[Path, Arm], Any]] = {
    case.__name__: case
    for case in (session, flush, update, alone, group, give_up, resume, load, stale_parts)
}


def serve() -> None:
    library = ctypes.CDLL(None)
    library.disk_faults_arm.argtypes = [
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)
    ]
    library.disk_faults_count.restype = ctypes.c_long
    for line in sys.stdin:
        order = json.loads(line)
        place = order["place"].encode()

        def arm(order: dict[str, Any] = order, place: bytes = place) -> None:
            library.disk_faults_arm(place, b"", order["kinds"], order["number"], order["outcome"])

        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                answer = json.dumps(CASES[order["case"]](Path(order["folder"]), arm))
                with open(writer, "w", encoding="utf-8") as pipe:
                    pipe.write(answer)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        with open(reader, encoding="utf-8") as pipe:
            answer = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        value = json.loads(answer) if answer else None
        print(json.dumps([code, value, library.disk_faults_count()]), flush=True)


if __name__ == "__main__":
    serve()
