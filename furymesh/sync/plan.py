"""What is left to send of a transfer that is taken up again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict

from furymesh.sync.folder import Folder
from furymesh.sync.found import find_finished
from furymesh.sync.lock_format import FileState, Status
from furymesh.sync.parts import is_passing, part_size, truncate_part


class ResumePlan(TypedDict):
    """What is to be sent, by file name; `resume_files` with the bytes that are here."""

    action: Literal["resume", "fresh_transfer"]
    completed_files: list[str]
    resume_files: list[tuple[str, int]]
    fresh_files: list[str]


def resume_message(plan: ResumePlan) -> str:
    """The line that tells a user how a transfer begins."""
    if plan["action"] == "fresh_transfer":
        return "Starting fresh transfer"
    return (
        f"Resuming {len(plan['completed_files'])} completed,"
        f" {len(plan['resume_files'])} partial, {len(plan['fresh_files'])} fresh files"
    )


def make_plan(
    folder: Folder,
    known: Callable[[str], FileState | None],
    incoming: dict[str, FileState],
    *,
    same_boot: bool,
) -> ResumePlan:
    """What of the `incoming` files is here; their states there become what is found.

    `known` is what the lock says of a file, written in this boot of the machine
    or not. Raises OSError if the moment is bad.
    """
    plan = ResumePlan(action="fresh_transfer", completed_files=[], resume_files=[], fresh_files=[])
    for name, state in incoming.items():
        content = _known_content(known(name), state)
        if content is not None and (finished := find_finished(folder, name, content)):
            incoming[name] = finished
            plan["completed_files"].append(name)
        elif content is not None and (here := take_up(folder, name, content, same_boot)):
            incoming[name] = content._replace(status=Status.IN_PROGRESS)
            plan["resume_files"].append((name, here))
        else:
            plan["fresh_files"].append(name)
    if plan["completed_files"] or plan["resume_files"]:
        plan["action"] = "resume"
    return plan


def resumable(folder: Folder, name: str, state: FileState, same_boot: bool) -> int:
    """Bytes of a part to go on from: all of it, or what is vouched for. Raises OSError.

    What was written since the lock was counts if the machine did not go down in
    between, and if the content will be checked as a whole.
    """
    if state.status in (Status.COMPLETED, Status.FAILED):
        return 0
    here = part_size(folder, folder.place(name))
    if not state.transferred_bytes <= here <= state.size:
        return 0
    if state.original_hash:
        return here if same_boot else state.transferred_bytes
    return state.transferred_bytes if state.partial_hash else 0


def take_up(folder: Folder, name: str, state: FileState, same_boot: bool) -> int:
    """`resumable`, and nothing beyond that is in the part any more; 0 if it cannot be cut.

    Raises OSError if the moment is bad.
    """
    here = resumable(folder, name, state, same_boot)
    try:
        # What was not synced before a reboot must not count as if written in this boot.
        if here:
            truncate_part(folder, folder.place(name), here)
    except OSError as error:
        if is_passing(error):
            raise
        folder.warn(str(folder.fault(name, "take up", error)))
        return 0
    return here


def _known_content(known: FileState | None, incoming: FileState) -> FileState | None:
    """What the lock knows of a file, if that is of the content that is announced now."""
    if known is None or known.size != incoming.size:
        return None
    if known.original_hash and incoming.original_hash:
        return known if known.original_hash == incoming.original_hash else None
    same = known.last_modified and known.last_modified == incoming.last_modified
    # Whichever of them has a digest, it is what the content must have from now on.
    digest = known.original_hash or incoming.original_hash
    return known._replace(original_hash=digest) if same else None
