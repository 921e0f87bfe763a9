"""The part and its resume data together: killed while writing, then taken up again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from furymesh.core.bitfield import chunks_of
from furymesh.core.geometry import Geometry
from furymesh.core.ids import FileId
from furymesh.core.layout import Layout
from furymesh.storage.lock import DownloadLock
from furymesh.storage.part import PartStore, missing_chunks
from furymesh.storage.publish import publish
from furymesh.storage.resume import ResumeData

CHUNK = 16 * 1024
COUNT = 400
SIZE = CHUNK * COUNT - 5
FILE_ID = FileId(b"\x33" * 32)

# Four threads write and record chunks while a fifth marks epochs and compacts.
WRITER = """
import sys, threading
from pathlib import Path
from furymesh.core.geometry import Geometry
from furymesh.core.ids import FileId
from furymesh.core.layout import Layout
from furymesh.storage.lock import DownloadLock
from furymesh.storage.part import PartStore
from furymesh.storage.resume import ResumeData, ResumeMeta

here, chunk_size, count, size = Path(sys.argv[1]), *map(int, sys.argv[2:])
geometry, file_id = Geometry(size, chunk_size), FileId(b"\\x33" * 32)
DownloadLock(here, file_id).acquire("furymesh get")
meta = ResumeMeta(file_id, "x", "x", "x.part", 0.0, chunks_total=count)
resume = ResumeData.create(here, meta)
part = PartStore.open(here / "x.part", Layout.of_file(size), geometry, create=True)

def work(first):
    for chunk in range(first, count, 4):
        part.write_chunk(chunk, bytes([chunk % 255 + 1]) * geometry.length(chunk))
        resume.add(chunk)
        if chunk == count // 8:
            print("going", flush=True)

threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
while True:
    resume.mark_epoch(part.sync)
    resume.compact(part.sync)
"""


def test_killed_in_full_flight_every_claim_is_true_and_the_rest_is_fetched(tmp_path: Path) -> None:
    geometry, layout = Geometry(SIZE, CHUNK), Layout.of_file(SIZE)
    arguments = [sys.executable, "-c", WRITER, tmp_path, CHUNK, COUNT, SIZE]
    writer = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "going\n"
    writer.kill()
    writer.communicate()

    def content(chunk: int) -> bytes:
        return bytes([chunk % 255 + 1]) * geometry.length(chunk)

    part = tmp_path / "x.part"
    with DownloadLock(tmp_path, FILE_ID) as lock:
        lock.acquire("furymesh resume")
        resume = ResumeData.load(tmp_path, FILE_ID)
        assert not resume.damaged
        assert resume.have.bit_count() > COUNT // 32
        assert missing_chunks(part, layout, geometry, sealed=False) == 0
        unsynced = resume.volatile
        with PartStore.open(part, layout, geometry, create=False, unsynced=unsynced) as store:
            view = memoryview(bytearray(CHUNK))
            for chunk in chunks_of(resume.have):
                assert bytes(view[: store.read_chunk_into(chunk, view)]) == content(chunk)
            for chunk in chunks_of(geometry.all_chunks & ~resume.have):
                store.write_chunk(chunk, content(chunk))
                resume.add(chunk)
            resume.compact(store.sync)
            final = publish(part, tmp_path / "x", layout)
        resume.delete()
    assert final.read_bytes() == b"".join(map(content, range(COUNT)))
    assert os.listdir(tmp_path) == ["x"]
