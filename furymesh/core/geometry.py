"""All arithmetic on offsets: how a stream is cut into chunks and pages."""

from __future__ import annotations

from dataclasses import dataclass

from furymesh.core.errors import UsageError

MIN_CHUNK_SIZE = 16 * 1024  # below this, requests cost more than the bytes they bring
MAX_CHUNK_SIZE = 16 * 1024 * 1024  # one chunk must fit in memory many times over
DEFAULT_MIN_CHUNK = 256 * 1024
DEFAULT_MAX_CHUNK = 4 * 1024 * 1024
# A swarm finishes close to its lower bound when every host holds a small share
# of many chunks at any moment; two thousand is where the gain flattens out.
TARGET_CHUNKS = 2048
DIGEST_SIZE = 32
PAGE_DIGESTS = 2048  # digests in one manifest page: 64 KiB, one message
PAGE_SIZE = PAGE_DIGESTS * DIGEST_SIZE
MAX_PAGES = 2000  # so that the header, 32 bytes a page, stays below 64 KiB
MAX_CHUNKS = MAX_PAGES * PAGE_DIGESTS  # so that a bitmap is half a mebibyte at the most
MAX_STREAM_SIZE = MAX_CHUNKS * MAX_CHUNK_SIZE  # 62.5 TiB


def default_chunk_size(stream_size: int) -> int:
    """The chunk size (bytes) everyone uses for a stream of this size (bytes)."""
    size = DEFAULT_MIN_CHUNK
    while size < DEFAULT_MAX_CHUNK and size * 2 * TARGET_CHUNKS <= stream_size:
        size *= 2
    return size


@dataclass(frozen=True, slots=True)
class Geometry:
    """A stream of `size` bytes cut into chunks of `chunk_size` bytes.

    An empty stream has no chunks. Construction validates; everything after
    trusts it.
    """

    size: int
    chunk_size: int

    def __post_init__(self) -> None:
        if self.chunk_size & (self.chunk_size - 1) or not (
            MIN_CHUNK_SIZE <= self.chunk_size <= MAX_CHUNK_SIZE
        ):
            raise UsageError(
                f"chunk size {self.chunk_size} is not a power of two from 16 KiB to 16 MiB"
            )
        if not 0 <= self.size <= MAX_STREAM_SIZE:
            raise UsageError(f"stream size {self.size} is outside 0 … {MAX_STREAM_SIZE}")
        if self.page_count > MAX_PAGES:
            raise UsageError(
                f"{self.size} bytes in chunks of {self.chunk_size} need more than"
                f" {MAX_PAGES} manifest pages: choose a larger chunk size"
            )

    @property
    def chunk_count(self) -> int:
        return -(-self.size // self.chunk_size)

    @property
    def page_count(self) -> int:
        """Manifest pages that hold the chunk digests."""
        return -(-self.chunk_count // PAGE_DIGESTS)

    @property
    def all_chunks(self) -> int:
        """The mask with every chunk's bit set."""
        return (1 << self.chunk_count) - 1

    def offset(self, chunk: int) -> int:
        """Where a chunk starts in the stream (bytes)."""
        return chunk * self.chunk_size

    def length(self, chunk: int) -> int:
        """A chunk's size in bytes; only the last may be short."""
        return min(self.chunk_size, self.size - chunk * self.chunk_size)

    def digests_on_page(self, page: int) -> int:
        return min(PAGE_DIGESTS, self.chunk_count - page * PAGE_DIGESTS)

    def bytes_in(self, mask: int) -> int:
        """Total bytes of the chunks in a mask."""
        last = self.chunk_count - 1
        total = mask.bit_count() * self.chunk_size
        if last >= 0 and mask >> last & 1:
            total -= self.chunk_size - self.length(last)
        return total
