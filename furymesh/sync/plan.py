"""What is left to send of a transfer that is taken up again."""

from __future__ import annotations

from typing import Literal, TypedDict

from furymesh.sync.lock_format import FileState


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


def known_content(known: FileState | None, incoming: FileState) -> FileState | None:
    """What the lock knows of a file, if that is of the content that is announced now."""
    if known is None or known.size != incoming.size:
        return None
    if known.original_hash and incoming.original_hash:
        return known if known.original_hash == incoming.original_hash else None
    same = known.last_modified and known.last_modified == incoming.last_modified
    # Whichever of them has a digest, it is what the content must have from now on.
    digest = known.original_hash or incoming.original_hash
    return known._replace(original_hash=digest) if same else None
