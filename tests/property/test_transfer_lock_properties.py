"""A transfer of a few files against a model, through kills, reboots, forgers and bad senders."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from furymesh.sync import (
    LOCK_NAME,
    LOG_NAME,
    FileWriter,
    GroupCommit,
    IncomingFile,
    TransferLockManager,
)

SIZE = 40
NAMES = ("a", "b.txt", "deep/c")
NAME = st.sampled_from(NAMES)


class Transfer(RuleBasedStateMachine):
    """What a receiver knows that it has, next to what the plan says.

    `written` bytes of each file are in its part, `synced` of them on the platter; a
    file that `has_name` is finished. With `doubt` the lock was forged, or a part
    spoilt: then anything may be sent again, and still nothing wrong may stay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.folder = Path(self.directory.name) / "in"
        self.folder.mkdir()
        self.boot = 1
        self.version = dict.fromkeys(NAMES, 0)
        self.hostile = False
        self.fresh()

    @initialize(hostile=st.booleans())
    def begin_among(self, hostile: bool) -> None:
        """In half of the cases nobody spoils anything, and the plan is exact throughout."""
        self.hostile = hostile

    def fresh(self) -> None:
        self.written = dict.fromkeys(NAMES, 0)
        self.synced = dict.fromkeys(NAMES, 0)
        self.has_name: set[str] = set()
        self.doubt = False
        self.lock = self.opened()
        self.lock.create_lock_file("", self.listed(), SIZE * len(NAMES))
        self.begin()

    def opened(self) -> TransferLockManager:
        boot = self.boot.to_bytes(16, "big")
        return TransferLockManager(self.folder, clock=lambda: 1e9, boot_id=boot)

    def begin(self) -> None:
        self.group = GroupCommit(self.lock.folder)
        self.writers: dict[str, FileWriter] = {}

    def content(self, name: str) -> bytes:
        seed = f"{name} {self.version[name]}".encode()
        return (hashlib.sha256(seed).digest() * 2)[:SIZE]

    def listed(self) -> list[IncomingFile]:
        return [
            {
                "filename": name,
                "size": SIZE,
                "original_hash": hashlib.sha256(self.content(name)).hexdigest(),
            }
            for name in NAMES
        ]

    def writer(self, name: str, grouped: bool = False) -> FileWriter:
        if name not in self.writers:
            group = self.group if grouped else None
            self.writers[name] = FileWriter(name, SIZE, 0, self.lock, commit=group)
            self.writers[name].open_for_writing(self.lock.get_resume_bytes(name))
            if self.writers[name].is_complete:
                self.has_name.add(name)
        return self.writers[name]

    def take_up(self) -> None:
        """Another process comes after the one that was killed; the plan is what it goes by."""
        self.lock = self.opened()
        loaded = self.lock.load_existing_lock()
        assert loaded or self.doubt
        plan = self.lock.get_resume_plan(self.listed())
        done, partial = set(plan["completed_files"]), dict(plan["resume_files"])
        assert done | set(partial) | set(plan["fresh_files"]) == set(NAMES)
        if not self.doubt:
            # Others may be there from before a fresh transfer; their content is looked at.
            assert done >= self.has_name
            for name in set(NAMES) - done:
                assert partial.get(name, 0) == self.written[name], name
        if plan["action"] == "fresh_transfer":
            self.lock.folder.close()
            self.fresh()
            return
        self.has_name = done
        self.written = {name: partial.get(name, 0) for name in NAMES}
        self.synced = {name: min(self.written[name], self.synced[name]) for name in NAMES}
        self.begin()

    @rule(name=NAME, count=st.integers(1, SIZE), grouped=st.booleans())
    def write(self, name: str, count: int, grouped: bool) -> None:
        if name in self.has_name or self.writer(name, grouped).is_complete:
            return
        writer = self.writer(name)
        before = writer.written
        got = writer.write_chunk(self.content(name)[before : before + count])
        assert writer.error is None or self.doubt
        if not self.doubt:
            assert got == min(count, SIZE - before)
        self.written[name] = writer.written
        if writer.is_complete:
            self.has_name.add(name)

    @rule()
    def commit(self) -> None:
        self.group.commit()
        self.has_name |= {name for name, writer in self.writers.items() if writer.is_complete}

    @rule()
    def flush(self) -> None:
        self.lock.flush()
        for name, writer in self.writers.items():
            if writer.written < SIZE:
                self.synced[name] = writer.written

    @rule()
    def killed(self) -> None:
        """The page cache survives."""
        self.lock.folder.close()
        self.take_up()

    @rule(lost=st.sampled_from(["cut", "zeros"]))
    def power_cut(self, lost: str) -> None:
        """Content that was not synced is gone, or other than it was."""
        self.lock.folder.close()
        self.boot += 1
        for name in set(NAMES) - self.has_name:
            part = self.folder / f"{name}.part"
            if part.exists():
                before = part.read_bytes()
                keep = before[: self.synced[name]]
                part.write_bytes(keep.ljust(len(before), b"\0") if lost == "zeros" else keep)
            self.written[name] = self.synced[name]
        self.take_up()

    @rule(name=NAME)
    def source_changes(self, name: str) -> None:
        self.lock.folder.close()
        self.version[name] += 1
        self.has_name.discard(name)
        self.written[name] = self.synced[name] = 0
        self.take_up()

    @precondition(lambda self: self.hostile)
    @rule(name=NAME, at=st.integers(0, SIZE - 1))
    def somebody_spoils_a_part(self, name: str, at: int) -> None:
        part = self.folder / f"{name}.part"
        # One that was checked and waits for the commit is as good as finished.
        waits = name in self.writers and self.writers[name].written == SIZE
        if part.exists() and not waits:
            raw = bytearray(part.read_bytes())
            if at < len(raw):
                raw[at] ^= 1
                part.write_bytes(raw)
                self.doubt = True

    @precondition(lambda self: self.hostile)
    @rule(at=st.integers(0, 2000), value=st.integers(0, 255))
    def somebody_spoils_the_lock(self, at: int, value: int) -> None:
        self.lock.folder.close()
        raw = bytearray((self.folder / LOCK_NAME).read_bytes())
        raw[at % len(raw)] = value
        (self.folder / LOCK_NAME).write_bytes(raw)
        self.doubt = True
        self.take_up()

    @invariant()
    def whatever_has_a_name_is_whole(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix != ".part" and path.name not in (LOCK_NAME, LOG_NAME):
                name = str(path.relative_to(self.folder)).replace("_1", "").replace("_2", "")
                assert len(path.read_bytes()) == SIZE, name
        for name in self.has_name:
            assert any(
                path.read_bytes() == self.content(name)
                for path in (self.folder / name).parent.iterdir()
                if path.is_file()
            ), name

    def teardown(self) -> None:
        """Everything arrives in the end, in a few attempts if something was spoilt."""
        with self.directory:
            for _ in range(6):
                for name in set(NAMES) - self.has_name:
                    writer = self.writer(name)
                    writer.write_chunk(self.content(name)[writer.written :])
                self.commit()
            self.lock.close()
            assert self.has_name == set(NAMES)
            self.whatever_has_a_name_is_whole()


Transfer.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestTransfer = Transfer.TestCase
