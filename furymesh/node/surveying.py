"""Shares of what stays on a server: reading it once for its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from furymesh.core.errors import UnavailableError
from furymesh.core.geometry import Geometry, default_chunk_size
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.layout import Layout
from furymesh.core.link import Mirror
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.sources.content import Content
from furymesh.sources.opening import open_server
from furymesh.sources.source import UnfitMirrorError
from furymesh.sources.survey import digests_of

_SCHEMES = ("http://", "https://", "sftp://")


def mirror_of(path: Path | str) -> Mirror | None:
    """The mirror that a path to share names, if it is a URL; raises UsageError."""
    text = str(path)
    return Mirror.parse(text) if text.lower().startswith(_SCHEMES) else None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found at a mirror's URL; `size` is in plain bytes, `skipped` as in a `Scan`."""

    manifest: Manifest
    size: int
    skipped: tuple[str, ...]


async def survey(
    mirror: Mirror,
    algorithm: HashAlgorithm,
    chunk_size: int | None,
    key: bytes | None,
    progress: Callable[[int, int], None],
) -> Survey:
    """Read the file, or on an SFTP server the folder, at a mirror's URL; sealed with `key`.

    `progress` gets the bytes read and bytes in all. Raises UsageError (chunk size),
    UnfitMirrorError, UnavailableError.
    """
    sealer = Sealer(key) if key else None
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        progress(done, size)

    try:
        async with open_server(mirror, own=True, private=False) as server:
            found = await server.look()
            layout = Layout(found.entries, single=found.single)
            size = layout.plain_size
            geometry = Geometry(size, chunk_size or default_chunk_size(size))
            if sealer:
                cut = geometry.chunk_size
                geometry = Geometry(cipher_size(size, cut), cut)
            content = Content(layout, geometry, sealer)
            digests = await digests_of(server, content, algorithm, report)
            if await server.look() != found:
                raise UnfitMirrorError("it changed while it was read: share it again")
    except UnfitMirrorError as error:
        raise UnfitMirrorError(f"cannot share {mirror.place}: {error}") from None
    except UnavailableError as error:
        raise UnavailableError(f"cannot read {mirror.place}: {error}; try again later") from None
    entries = None if found.single else found.entries
    manifest = Manifest.build(algorithm, geometry, digests, entries=entries, sealer=sealer)
    return Survey(manifest, size, found.skipped)
