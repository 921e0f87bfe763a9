"""Test content: made fast, incompressible, with no chunk like another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.bench.process import BenchError

BLOCK = 4 * 1024 * 1024  # bytes generated at a time


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be transferred, its size in bytes and its BLAKE3."""

    path: Path
    size: int
    digest: bytes

    def check(self, copy: Path) -> None:
        """Raise BenchError unless `copy` holds the same bytes."""
        if not copy.is_file():
            raise BenchError(f"{copy.name} is missing after the transfer")
        if blake3(max_threads=blake3.AUTO).update_mmap(copy).digest() != self.digest:
            raise BenchError(f"{copy.name} differs from what was sent")


def make_source(path: Path, size: int, seed: int = 0) -> Source:
    """Fill `path` with `size` bytes of an AES-CTR key stream that `seed` selects."""
    key = seed.to_bytes(32, "big")
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(BLOCK)
    hasher = blake3()
    with path.open("wb") as file:
        for offset in range(0, size, BLOCK):
            block = stream.update(zeros[: size - offset])
            hasher.update(block)
            file.write(block)
    return Source(path, size, hasher.digest())


def free_memory() -> int:
    """Bytes the system could still give to files on a tmpfs."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(dict(line.split(":") for line in lines)["MemAvailable"].split()[0]) * 1024


def touch_memory(folder: Path, size: int) -> None:
    """Write and delete `size` bytes in `folder`, before each run alike.

    A virtual machine gives freed memory back to its host; whoever writes first
    after that would pay for getting it again.
    """
    scratch = folder / "touched"
    block = bytes(BLOCK)
    try:
        with scratch.open("wb", buffering=0) as file:
            for _ in range(0, size, BLOCK):
                file.write(block)
    finally:
        scratch.unlink(missing_ok=True)
