"""Where a download lies: its final path, and its part beside that.

Resume data says where an earlier run worked, but may be forged or from another
machine. So a path out of it is taken only if something of this download is
there, or its whole directory is missing; and only what is named like our part,
or is the verified content itself, is ever moved.
"""

from __future__ import annotations

import os
from pathlib import Path

from furymesh.core.errors import EnvironmentFault, UsageError
from furymesh.core.ids import FileId
from furymesh.core.layout import Layout
from furymesh.core.manifest import Manifest
from furymesh.core.paths import safe_name, shown
from furymesh.core.snapshot import ResumeMeta
from furymesh.storage.check import Check
from furymesh.storage.files import translating
from furymesh.storage.finished import FinishedReader
from furymesh.storage.moving import move_part, sweep_copies
from furymesh.storage.order import Order, Settings
from furymesh.storage.part_names import is_part_of, part_path, remove_part
from furymesh.storage.publish import find_published
from furymesh.storage.resume import ResumeData

SEALED_SUFFIX = ".sealed"  # ciphertext kept for want of the key


def final_path(
    order: Order, settings: Settings, stored: ResumeMeta | None, hint: str, *, sealed: bool
) -> Path:
    """The path asked for, or stored, or made of the best name there is.

    `hint` is a peer's idea of the name; `sealed` if ciphertext will be kept.
    Raises EnvironmentFault, and UsageError for a device or a pipe: renames would replace it.
    """
    # What is asked for again may be there by now, as the folder that was just published.
    if stored is not None and (
        order.output is None or os.path.abspath(order.output) == stored.output
    ):
        output = _own_path(stored.output)
        if output is not None and _worked_at(output, stored):
            return output
    fallback = order.file_id.hex()[:16]
    name = safe_name(order.name or (stored.name if stored else "") or hint, fallback)
    if sealed:
        name += SEALED_SUFFIX
    target = order.output
    if target is None:
        return Path(os.path.abspath(settings.download_dir / name))
    with translating(target, "look at"):
        if target.is_dir():
            target = target / name
        elif target.exists() and not target.is_file():
            raise UsageError(
                f"{shown(str(target))} is neither a file nor a folder, and a download is"
                " written to one of those: choose another --output"
            )
    return Path(os.path.abspath(target))


def place_part(final: Path, file_id: FileId, stored: ResumeMeta | None) -> Path:
    """Where the part is to lie; moves it there if it lies elsewhere.

    Raises EnvironmentFault, also if nothing can be written there.
    """
    parent = final.parent
    with translating(parent, "look at"):
        here = parent.is_dir()
    if not here:
        raise EnvironmentFault(
            f"there is no directory {shown(str(parent))}: create it or choose another --output"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"the directory {shown(str(parent))} cannot be written to:"
            " choose another --output or change its permissions"
        )
    sweep_copies(parent, file_id)
    part = part_path(final, file_id)
    old = _own_path(stored.part) if stored is not None else None
    if old is None or old == part or os.path.lexists(part):
        return part
    # Resume data may be forged: only what is named like our part is moved.
    if is_part_of(old, file_id) and os.path.lexists(old):
        move_part(old, part, file_id)
    return part


def take_back(
    part: Path,
    final: Path,
    layout: Layout,
    manifest: Manifest,
    key: bytes | None,
    resume: ResumeData,
) -> None:
    """Undo a rename after which an earlier run was killed before it could say so.

    Inode numbers are used again, so what looks like our work is moved only
    if every chunk of it is. What has the part's name then is no part: it is
    the folder that was to be replaced, and was about to be removed.
    """
    everything = manifest.header.geometry.all_chunks
    inode = resume.meta.part_inode
    if inode is None or resume.have != everything or not manifest.complete:
        return
    with translating(part, "look at"):
        replaced = os.path.lexists(part)
        if replaced and part.lstat().st_ino == inode:
            return
    published = find_published(final, inode)
    if published is None or published.is_dir() == layout.single:
        return
    reader = FinishedReader(published, manifest, key)
    try:
        ours = Check(manifest, everything, reader.read).run() == everything
    finally:
        reader.close()
    if ours:
        if replaced:
            remove_part(part, manifest.file_id)
        with translating(published, "take up again"):
            published.rename(part)


def _own_path(text: str) -> Path | None:
    """A path out of resume data, if it can be one that furymesh wrote there."""
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        return None
    return Path(text) if os.path.isabs(text) and b"\0" not in raw else None


def _worked_at(output: Path, stored: ResumeMeta) -> bool:
    """Whether a stored output is where this download was really under way.

    A directory that is gone, like that of a disk which is not mounted, is
    for `place_part` to complain of, rather than to begin again elsewhere.
    """
    with translating(output, "look at"):
        if not output.parent.is_dir() or os.path.lexists(part_path(output, stored.file_id)):
            return True
    inode = stored.part_inode
    return inode is not None and find_published(output, inode) is not None
