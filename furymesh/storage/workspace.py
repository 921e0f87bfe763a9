"""The local side of one download: its part, its resume data, its place at the end.

What the workspace promises is in the invariants of the modules that it uses; it
only puts them in order: lock, manifest, resume data, part.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from furymesh.core.bitfield import chunks_of
from furymesh.core.errors import (
    DamagedResumeDataError,
    DiskFullError,
    InvalidManifestError,
    NotFoundError,
    UsageError,
)
from furymesh.core.geometry import Geometry
from furymesh.core.ids import node_id_text
from furymesh.core.layout import Layout
from furymesh.core.link import MAX_LINK_MIRRORS, Address, Mirror
from furymesh.core.manifest import Manifest
from furymesh.core.paths import shown
from furymesh.core.protection import content_key_of
from furymesh.core.sealing import Sealer
from furymesh.core.snapshot import ResumeMeta
from furymesh.core.units import format_size
from furymesh.storage.content import Content
from furymesh.storage.files import free_space
from furymesh.storage.finished import facts_of, layout_on_disk
from furymesh.storage.lock import DownloadLock
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.order import Order, Settings
from furymesh.storage.part import PartStore, missing_chunks
from furymesh.storage.placing import final_path, place_part, take_back
from furymesh.storage.publish import publish
from furymesh.storage.resume import ResumeData
from furymesh.storage.scan import Facts, settle
from furymesh.storage.writers import proven


class Workspace:
    """Files of one download, from the lock to the final name."""

    def __init__(self, order: Order, settings: Settings) -> None:
        self.order = order
        self.settings = settings
        self.key = order.key
        self.notes: list[str] = []
        self.resume: ResumeData | None = None
        self.part: PartStore
        self.layout: Layout
        self.final: Path
        self.manifest: Manifest | None = None
        self.manifest_kept = False  # on disk, so that single pages can follow
        self.executable = False
        self.private = order.private
        self.sealed = False  # ciphertext is kept
        self.sealer: Sealer | None = None  # seals and opens chunks, given the key
        self.known_peers: tuple[str, ...] = ()
        # Each with whether the user named it himself; such may be at private addresses.
        self.mirrors: dict[Mirror, bool] = {
            **dict.fromkeys(order.mirrors, False),
            **dict.fromkeys(order.own_mirrors, True),
        }
        self.facts: tuple[Facts, ...] | None = None  # of the published files
        self._manifests = ManifestStore(settings.data_dir)
        self._stored: ResumeMeta | None = None
        self._lock = DownloadLock(settings.resume_dir, order.file_id)

    # --- in order -------------------------------------------------------------------

    def lock(self) -> None:
        """Be the one process on this download; raises AlreadyRunningError."""
        self._lock.acquire("furymesh node" if self.order.detached else "furymesh get")

    def recall(self) -> None:
        """Load what an earlier run left: resume data, manifest, key, peers.

        Resume data may be forged or from another machine: each fact of it is
        taken by itself, and one that makes no sense is as good as absent.
        """
        file_id = self.order.file_id
        if self.settings.resume_enabled:
            try:
                self.resume = ResumeData.load(self.settings.resume_dir, file_id)
                self._stored = self.resume.meta
            except NotFoundError:
                pass
            except DamagedResumeDataError as error:
                self.notes.append(f"{error}; what the part holds is hashed instead")
        self.manifest = self._manifests.load(file_id)
        stored = self._stored
        if stored is not None:
            # One that does not fit is refused later: without any, ciphertext would be kept.
            if self.key is None and stored.key is not None:
                purpose = content_key_of(file_id)
                self.key = self.settings.protection.reveal(purpose, stored.key)
            self.executable = stored.executable
            self.private = self.private or stored.private
            self.known_peers = tuple(filter(_is_address, stored.peers))
            for text in stored.own_mirrors[:MAX_LINK_MIRRORS]:
                self._recall_mirror(text, own=True)
            for text in stored.mirrors[:MAX_LINK_MIRRORS]:
                self._recall_mirror(text, own=False)
            if self.manifest is None and stored.header is not None:
                with contextlib.suppress(InvalidManifestError):
                    self.manifest = Manifest(stored.header, file_id)

    def _recall_mirror(self, text: str, *, own: bool) -> None:
        with contextlib.suppress(UsageError):
            mirror = Mirror.parse(text)
            self.mirrors[mirror] = own or self.mirrors.get(mirror, False)

    def remember_header(self, manifest: Manifest) -> None:
        """Keep a manifest, with the pages it has so far."""
        self.manifest = manifest
        self._manifests.save(manifest)
        self.manifest_kept = True

    def remember_page(self, page: int) -> None:
        assert self.manifest is not None
        self._manifests.save_page(self.manifest, page)

    def open(self, hint: str, peers: tuple[str, ...]) -> tuple[int, int]:
        """Make or take up the part; returns the masks of good and doubtful chunks.

        `hint` is a peer's idea of the name, `peers` are worth asking again. Raises WrongKeyError,
        DiskFullError, EnvironmentFault, AlreadyRunningError.
        """
        manifest = self.manifest
        assert manifest is not None
        geometry = manifest.header.geometry
        self.layout, self.sealer = layout_on_disk(manifest, self.key)
        self.sealed = manifest.header.sealed and self.key is None
        self._match(geometry)
        self.final = final_path(self.order, self.settings, self._stored, hint, sealed=self.sealed)
        part = place_part(self.final, self.order.file_id, self._stored)
        if self.resume is not None:
            take_back(part, self.final, self.layout, manifest, self.key, self.resume)
        existed = os.path.lexists(part)
        good, doubtful = self._trusted(part, geometry, existed)
        self._check_space(part, geometry, good | doubtful)
        volatile = self.resume.volatile if self.resume is not None else None
        self.part = PartStore.open(
            part,
            self.layout,
            geometry,
            self.sealer,
            create=True,
            unsynced=volatile,
            reserve=self.settings.reserve,
        )
        self._record(part, manifest, good, doubtful, peers)
        return good, doubtful

    def source(self, path: Path) -> Content:
        """A reader of the stream over the part, or over the published result.

        What was published is hashed again when it was changed; the part grows,
        and whoever reads it asks for chunks that were verified.
        """
        manifest = self.manifest
        assert manifest is not None
        return Content(
            path,
            self.layout,
            manifest.header.geometry,
            self.sealer,
            self.facts,
            matches=manifest.matches,
        )

    def publish(self) -> Path:
        """Give the verified part its final name, then drop the resume data."""
        self.part.sync()
        if self.resume is not None:
            # From the rename on these are the only proof that the result is ours
            # (`take_back`): a power cut must not leave the new name without them.
            self.resume.mark_epoch(self.part.sync)
            self._manifests.sync(self.order.file_id)
        self.part.close()
        path = publish(
            self.part.path,
            self.final,
            self.layout,
            executable=self.executable and not self.sealed,
            overwrite=self.order.overwrite,
            inodes=self.part.inodes,
        )
        if self.resume is not None:
            self.resume.delete()
            self.resume = None
        facts = facts_of(path, self.layout)
        settle(facts)
        self.facts = proven(path, self.layout, facts)
        return path

    def close(self) -> None:
        """Let go of everything; what is on disk stays."""
        if self.resume is not None:
            self.resume.close()
        if hasattr(self, "part"):
            self.part.close()
        if self._lock.held:
            self._lock.release()

    # --- parts of it ----------------------------------------------------------------

    def _match(self, geometry: Geometry) -> None:
        """Let go of resume data that counts other chunks than the manifest does."""
        if self.resume is None or not self.resume.meta.chunk_count:
            return
        meta = self.resume.meta
        told = (meta.size, meta.chunk_size, meta.chunks_total)
        if told != (geometry.size, geometry.chunk_size, geometry.chunk_count):
            self.notes.append(
                "the resume data is about other chunks; what the part holds is hashed"
            )
            self.resume.close()
            self.resume = None

    def _trusted(self, part: Path, geometry: Geometry, existed: bool) -> tuple[int, int]:
        """What the part holds for certain, and what it may hold."""
        everything = geometry.all_chunks
        resume = self.resume
        if not existed:
            if resume is not None and (resume.have | resume.doubtful):
                self.notes.append(f"{shown(str(part))} is gone: starting from the beginning")
                resume.close()
                self.resume = None
            return 0, 0
        gone = missing_chunks(part, self.layout, geometry, sealed=self.sealer is not None)
        if resume is None or resume.meta.chunks_total is None:
            return 0, everything & ~gone
        if gone & (resume.have | resume.doubtful):
            self.notes.append(f"{shown(str(part))} was changed: hashing what is left of it")
            return 0, everything & ~gone
        if resume.damaged:
            return resume.have, everything & ~gone & ~resume.have
        return resume.have, resume.doubtful

    def _check_space(self, part: Path, geometry: Geometry, present: int) -> None:
        if not self.settings.check_space:
            return
        needed = geometry.size - geometry.bytes_in(present)
        free = free_space(part.parent)
        if needed + self.settings.reserve > free and needed:
            raise DiskFullError(
                f"{shown(str(part.parent))} has {format_size(free)} free, but {format_size(needed)}"
                f" are still to come and {format_size(self.settings.reserve)} are kept in reserve",
                "make room, choose another --output, or start all the same with --no-space-check",
            )

    def _record(
        self, part: Path, manifest: Manifest, good: int, doubtful: int, peers: tuple[str, ...]
    ) -> None:
        """Bring the resume data in line with what was found."""
        if not self.settings.resume_enabled:
            return
        geometry = manifest.header.geometry
        facts = {
            "name": self.final.name,
            "output": str(self.final),
            "part": str(part),
            "part_inode": self.part.inode,
            "size": geometry.size,
            "chunk_size": geometry.chunk_size,
            "chunks_total": geometry.chunk_count,
            "header": manifest.header_bytes,
            "key": self.key and self._protected(self.key),
            "executable": self.executable,
            "private": self.private,
            "detached": self.order.detached,
            "peers": peers,
        }
        if self.order.trackers:
            facts["trackers"] = tuple(map(str, self.order.trackers))
        for name, own in (("mirrors", False), ("own_mirrors", True)):
            facts[name] = tuple(str(mirror) for mirror, of in self.mirrors.items() if of is own)
        if self.order.nodes:
            facts["nodes"] = tuple(map(node_id_text, self.order.nodes))
        if self.resume is None:
            meta = ResumeMeta(
                file_id=self.order.file_id,
                created_at=time.time(),
                **facts,  # type: ignore[arg-type]
            )
            self.resume = ResumeData.create(self.settings.resume_dir, meta)
        else:
            self.resume.update_meta(**facts)
        # First what is to be hashed, so that a crash in between loses none of it.
        if doubtful:
            self.resume.doubt(doubtful)
        self.resume.lose_all(self.resume.have & ~good)

    def _protected(self, key: bytes) -> bytes:
        return self.settings.protection.protect(content_key_of(self.order.file_id), key)

    def settle(self, good: int, bad: int) -> None:
        """Record what hashing the doubtful chunks has shown."""
        if self.resume is None:
            return
        for chunk in chunks_of(good):
            self.resume.add(chunk)
        self.resume.lose_all(bad)
        # Hashing is slow: what came of it is kept, also that of the bad ones.
        self.resume.compact(self.part.sync)

    def note_peers(self, peers: tuple[str, ...]) -> None:
        """Remember whom to ask, for the next run."""
        if self.resume is not None and peers != self.resume.meta.peers:
            self.resume.update_meta(peers=peers)


def _is_address(text: str) -> bool:
    try:
        Address.parse(text)
    except UsageError:
        return False
    return True
