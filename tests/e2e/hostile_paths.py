"""Downloads of shares whose names want to get out of the folder, in one process to be traced.

    python -m tests.e2e.hostile_paths ROOT STEP

A sharer without scruples offers one share a case; the product's own `get` takes
it. Only ROOT/home and ROOT/server may be written to. Every STEP-th case is run;
one JSON line tells what came of them.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from pathlib import Path
from random import Random
from unittest import mock

import trio

from furymesh.core.errors import FuryMeshError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.link import Address, Link
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.core.snapshot import ResumeMeta
from furymesh.net.connect import Endpoint, listen
from furymesh.net.identity import load_or_create
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.storage.part_names import part_path
from furymesh.storage.resume import ResumeData
from furymesh.swarm.share import Share
from furymesh.swarm.swarm import Swarm
from tests.apart import apart

CHUNK = 16 * 1024
TIMEOUT = 20.0  # seconds a case may take; none takes one
SWAPS = 8  # downloads during which somebody swaps a directory for a link
SWAPPED_CHUNKS = 64
SWAPPED_RATE = 6e6  # bytes a second: half a second for it

# Each must be refused wherever it stands in a path.
REFUSED = (
    *("..", ".", "", "../..", "../outside/file", "x/../../outside/file", "/", "/outside", "//x"),
    *("..\\outside", "x\\..\\..\\outside", "C:", "C:\\x", "c:x", "Z:..", "\\\\host\\share", "\\"),
    *("\0", "a\0b", "../outside\0.txt", "a\nb", "a\rb", "\t", "\x1b[2J", "\x7f", "\x85", "\x9b"),
    *("\u202etxt.exe", "\u200e", "\u2066x", "\u2028", "\u061c", "\ud800", "a\udcffb"),
    *("CON", "con", "con.txt", "NUL", "nul.tar.gz", "AUX", "PRN.", "COM1", "LPT9.txt", "COM¹"),
    *("conin$", "CONOUT$", "name.", "name ", "...", " ", "x" * 256, "é" * 128, "/".join("d" * 65)),
)
# Each pair would be one file somewhere.
COLLIDING = (
    *(("a", "a"), ("A", "a"), ("Name", "nAME"), ("\u00e9", "e\u0301"), ("\u00c9", "e\u0301")),
    *(("stra\u00dfe", "STRASSE"), ("\u212a", "k"), ("\ufb01x", "fix"), ("\u03c3", "\u03c2")),
    *(("a", "a/b"), ("a/b", "a/b/c"), ("A/b", "a/c"), ("\u1e69", "s\u0323\u0307")),
)
PLACES = ("{}", "ok/{}", "{}/ok", "ok/{}/ok", "a/b/c/d/{}")
# As the name of the whole share: never an error, and never a way out.
NAMES = [*REFUSED, "~", "~/x", ".ssh", ".bashrc", "-rf", "$(id)", "home;id", "%2e%2e%2fx", ". ./x"]
TREE = ("a/b/c.bin", "a/d.bin", "e.bin")


@dataclass
class Case:
    """One hostile share, and what was done to the folder before it is fetched."""

    label: str
    manifest: Manifest
    data: bytes
    name: str | None = None
    hint: str = ""
    key: bytes | None = None
    overwrite: bool = False
    must_fail: bool = False
    rate: float | None = None  # bytes a second
    prepare: Callable[[Config, Link], None] = field(default=lambda config, link: None)


class Bytes:
    """A chunk source over a buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def resident_read_into(self, chunk: int, start: int, view: memoryview) -> bool:
        at = chunk * CHUNK + start
        view[:] = self._data[at : at + len(view)]
        return True

    def read_into(self, chunk: int, start: int, view: memoryview) -> None:
        self.resident_read_into(chunk, start, view)

    def close(self) -> None:
        """Nothing is open."""


# --- the cases ------------------------------------------------------------------------


def cases(rng: Random, outside: Path) -> Iterator[Case]:
    """Every case, in an order of its own for each seed; their number is the same."""
    found = [*_tables(rng), *_names(rng), *_links(rng, outside)]
    rng.shuffle(found)
    yield from found
    # Last, because somebody works against them from outside.
    for number in range(SWAPS):
        content = _folder(rng, TREE, SWAPPED_CHUNKS * CHUNK)
        yield Case("swap", *content, f"swap{number}", rate=SWAPPED_RATE)


def _tables(rng: Random) -> Iterator[Case]:
    for number, (bad, place) in enumerate(product(REFUSED, PLACES)):
        paths = [place.format(bad), "zz-honest.bin"]
        key = rng.randbytes(32) if number % 7 == 0 else None
        manifest, data = _folder(rng, paths, 100, key)
        yield Case(f"path {paths[0]!r}", manifest, data, "folder", key=key, must_fail=True)
    for (one, other), place in product(COLLIDING, PLACES):
        paths = [place.format(one), place.format(other)]
        made = Case(f"collision {paths}", *_folder(rng, paths, 100), "folder")
        # With more behind it, a file that is a directory too is just a directory.
        made.must_fail = not (place.endswith("/ok") and other.startswith(f"{one}/"))
        yield made


def _names(rng: Random) -> Iterator[Case]:
    for name in NAMES:
        encodable = name.encode(errors="ignore").decode()
        yield Case(f"link's name {name!r}", *_file(rng), name=encodable)
        yield Case(f"peer's name {name!r}", *_file(rng), hint=encodable)


def _links(rng: Random, outside: Path) -> Iterator[Case]:
    """Symbolic links where the part, what is in it, or the result is to be."""
    targets = [outside, outside / "file", outside / "missing", Path("../../outside"), Path("/")]
    for depth, target in product(("", "a", "a/b", "a/b/c.bin", "e.bin"), targets):
        for overwrite in (False, True):

            def plant(config: Config, link: Link, depth: str = depth, to: Path = target) -> None:
                final = config.storage.download_dir / (link.name or "")
                place = part_path(final, link.file_id) / depth
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(to)

            name = f"planted-{rng.getrandbits(32):x}"
            made = Case(f"link at {depth or 'the part'}", *_folder(rng, TREE, 100), name)
            made.prepare, made.overwrite = plant, overwrite
            yield made
    for target, single, overwrite in product(targets, (False, True), (False, True)):

        def occupy(config: Config, link: Link, to: Path = target) -> None:
            (config.storage.download_dir / (link.name or "")).symlink_to(to)

        name = f"occupied-{rng.getrandbits(32):x}"
        content = _file(rng) if single else _folder(rng, TREE, 100)
        yield Case(f"link at the result to {target}", *content, name, overwrite=overwrite,
                   prepare=occupy)  # fmt: skip
    for part, output in product(targets[:3], targets[:3]):

        def forge(config: Config, link: Link, part: Path = part, output: Path = output) -> None:
            meta = ResumeMeta(link.file_id, "forged", str(output), str(part), 0.0, part_inode=1)
            ResumeData.create(config.transfer.resume_dir, meta).close()

        yield Case(f"resume data to {part}", *_file(rng), "forged", prepare=forge)


def _file(rng: Random) -> tuple[Manifest, bytes]:
    data = rng.randbytes(100)
    algorithm = HashAlgorithm.from_label("blake3")
    return Manifest.build(algorithm, Geometry(100, CHUNK), algorithm.digest(data)), data


def _folder(
    rng: Random, paths: tuple[str, ...] | list[str], size: int, key: bytes | None = None
) -> tuple[Manifest, bytes]:
    """A folder of files of `size` bytes, whatever their paths are; manifest and stream."""
    plain = rng.randbytes(size * len(paths))
    sealer = Sealer(key) if key is not None else None
    data, total = plain, len(plain)
    if sealer is not None:
        assert total < CHUNK - 28
        data, total = sealer.seal(0, plain), cipher_size(total, CHUNK)
    algorithm = HashAlgorithm.from_label("blake3")
    digests = b"".join(algorithm.digest(data[at : at + CHUNK]) for at in range(0, total, CHUNK))
    entries = [Entry(path, EntryKind.FILE, size) for path in paths]
    with mock.patch("furymesh.core.manifest.encode_table", _unchecked):
        made = Manifest.build(
            algorithm, Geometry(total, CHUNK), digests, entries=entries, sealer=sealer
        )
    return made, data


def _unchecked(entries: Iterable[Entry]) -> bytes:
    listed = sorted((entry.path.encode("utf-8", "surrogatepass"), entry.size) for entry in entries)
    return b"".join(
        struct.pack(">BH", 0, len(path)) + path + struct.pack(">Q", size) for path, size in listed
    )


# --- running them ---------------------------------------------------------------------


async def run(root: Path, step: int, seed: int) -> dict[str, object]:
    """Fetch every `step`-th case from a sharer in this process; what came of them."""
    home = root / "home"
    config = apart(
        {"data_dir": home / "data", "storage": {"download_dir": home / "files", "reserve": "0"}}
    )
    endpoint = Endpoint(load_or_create(root / "server"))
    listeners = listen(Address("127.0.0.1", 0))
    endpoint.listen_port = listeners[0].getsockname()[1]
    swarm = Swarm(endpoint, Random(0))
    counts = {"cases": 0, "refused": 0, "finished": 0}
    wrong: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.serve, listeners, swarm.run_link)
        address = Address("127.0.0.1", endpoint.listen_port)
        every = cases(Random(seed), root / "outside")
        for case in islice(every, seed % step, None, step):
            counts["cases"] += 1
            finished = await _fetch(case, config, swarm, address)
            counts["finished" if finished else "refused"] += 1
            if finished and case.must_fail:
                wrong.append(case.label)
        nursery.cancel_scope.cancel()
    return {**counts, "wrong": wrong}


async def _fetch(case: Case, config: Config, swarm: Swarm, address: Address) -> bool:
    manifest = case.manifest
    share = Share(swarm, manifest.file_id, name=case.hint)
    swarm.add(share)
    share.serve(manifest, manifest.header.geometry.all_chunks, Bytes(case.data))
    link = Link(manifest.file_id, case.name, (), case.key)
    case.prepare(config, link)
    try:
        with trio.fail_after(TIMEOUT):
            await face.get(
                link,
                config,
                peers=[address],
                overwrite=case.overwrite,
                timeout=TIMEOUT / 2,
                max_download=case.rate,
            )
    except FuryMeshError:
        return False
    finally:
        swarm.remove(manifest.file_id)
    return True


if __name__ == "__main__":
    place = Path(sys.argv[1])
    os.chdir(place / "home")
    print(json.dumps(trio.run(partial(run, place, int(sys.argv[2]), int(sys.argv[3])))))
