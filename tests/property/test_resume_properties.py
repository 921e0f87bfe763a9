"""Resume data against a model, through kills, reboots, lost blocks and bad disks."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import DamagedResumeDataError, EnvironmentFault
from furymesh.core.ids import FileId
from furymesh.storage.resume import ResumeData, ResumeMeta, peek, resume_path

FILE_ID = FileId(b"\x77" * 32)
TOTAL = 24
CHUNKS = st.integers(0, TOTAL - 1)


class Download(RuleBasedStateMachine):
    """What the user of resume data believes, next to what it says.

    `good` chunks have right bytes in the file, `synced` ones on the platter too.
    `stable` bytes of the resume file were synced; what follows a power cut may take.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = resume_path(Path(self.directory.name), FILE_ID)
        self.boot = 1
        self.good: set[int] = set()
        self.synced: set[int] = set()

    @initialize()
    def begin(self) -> None:
        meta = ResumeMeta(FILE_ID, "x", "/x", "/x.part", 0.0, chunks_total=TOTAL)
        self.resume = ResumeData.create(self.path.parent, meta, boot_id=self.boot_id())

        self.settle()

    def settle(self) -> None:
        self.stable = self.path.stat().st_size

    def boot_id(self) -> bytes:
        return self.boot.to_bytes(16, "big")

    def sync(self) -> None:
        self.synced |= self.good

    def reopen(self) -> None:
        self.resume = ResumeData.load(self.path.parent, FILE_ID, boot_id=self.boot_id())
        self.settle()

    @rule(chunk=CHUNKS)
    def add(self, chunk: int) -> None:
        self.good.add(chunk)
        self.resume.add(chunk)

    @rule(chunks=st.sets(CHUNKS, max_size=3))
    def lose(self, chunks: set[int]) -> None:
        before = self.path.stat().st_ino
        self.resume.lose_all(sum(1 << chunk for chunk in chunks))
        if self.path.stat().st_ino != before:
            self.settle()
        self.good -= chunks
        self.synced -= chunks

    @rule(chunks=st.sets(CHUNKS, max_size=3))
    def doubt(self, chunks: set[int]) -> None:
        self.resume.doubt(sum(1 << chunk for chunk in chunks))
        self.settle()

    @rule()
    def mark_epoch(self) -> None:
        self.resume.mark_epoch(self.sync)
        self.settle()

    @rule()
    def compact(self) -> None:
        self.resume.compact(self.sync)
        self.settle()

    @rule(chunk=CHUNKS)
    def an_epoch_overtaken_by_an_add(self, chunk: int) -> None:
        def sync() -> None:
            self.sync()
            self.add(chunk)

        self.resume.mark_epoch(sync)
        self.settle()

    @rule(fate=st.booleans())
    def a_sync_fails(self, fate: bool) -> None:
        def sync() -> None:
            raise EnvironmentFault("no")

        if not self.resume.volatile:
            return
        try:
            self.resume.mark_epoch(sync)
        except EnvironmentFault:
            self.good = set(self.synced)
        self.resume.close()
        self.boot += fate
        self.reopen()

    @rule()
    def killed(self) -> None:
        """The page cache survives: nothing that was recorded is forgotten."""
        before = self.resume.have
        self.resume.close()
        self.reopen()
        assert self.resume.have == before

    @rule(keep=st.integers(0, 40))
    def power_cut(self, keep: int) -> None:
        """Unsynced content is gone, and the journal's end from some point on."""
        durable = self.resume.have & ~self.resume.volatile
        self.resume.close()
        self.boot += 1
        raw = self.path.read_bytes()
        end = min(self.stable + keep, len(raw))
        self.path.write_bytes(raw[:end] + bytes((len(raw) - end) // 2))
        self.good = set(self.synced)
        self.reopen()
        assert self.resume.have & durable == durable

    @precondition(lambda self: self.resume.doubtful)
    @rule()
    def rehash_the_doubtful(self) -> None:
        for chunk in chunks_of(self.resume.doubtful):
            if chunk in self.good:
                self.resume.add(chunk)
            else:
                self.resume.lose_all(1 << chunk)
        assert self.resume.doubtful == 0

    @rule(data=st.data())
    def a_bit_rots(self, data: st.DataObject) -> None:
        before = self.resume.have
        self.resume.close()
        raw = bytearray(self.path.read_bytes())
        bit = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[bit // 8] ^= 1 << bit % 8
        self.path.write_bytes(raw)
        try:
            self.reopen()
        except DamagedResumeDataError:
            raw[bit // 8] ^= 1 << bit % 8
            self.path.write_bytes(raw)
            self.reopen()
            return
        assert self.resume.damaged
        assert self.resume.have & ~before == 0
        assert before & ~(self.resume.have | self.resume.doubtful) == 0

    @invariant()
    def only_good_chunks_are_claimed(self) -> None:
        have = set(chunks_of(self.resume.have))
        assert have <= self.good
        assert have - set(chunks_of(self.resume.volatile)) <= self.synced
        assert self.resume.have & self.resume.doubtful == 0

    @invariant()
    def the_file_says_what_memory_says(self) -> None:
        assert peek(self.path, boot_id=self.boot_id()).have == self.resume.have

    def teardown(self) -> None:
        if hasattr(self, "resume"):
            self.resume.close()
        self.directory.cleanup()


Download.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestDownload = Download.TestCase
