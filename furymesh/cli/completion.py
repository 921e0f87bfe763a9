"""Completing ids at the shell: the ones this node knows, with their names.

A failure completes nothing: there is no place to report it while someone types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from furymesh.node.config import Config

PREFIX = 16  # hex digits: unambiguous, and a line still has room for the name


def resume_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of unfinished downloads."""
    try:
        from furymesh.node.resumes import list_resume
        from furymesh.storage.resume import Summary

        return [
            _entry(item.meta.file_id.hex(), item.meta.name, incomplete)
            for item in list_resume(_settings(context))
            if isinstance(item, Summary)
        ]
    except Exception:
        return []


def share_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of what this node shares."""
    try:
        from furymesh.node.face import shares

        return [
            _entry(item.file_id.hex(), item.name, incomplete) for item in shares(_settings(context))
        ]
    except Exception:
        return []


def _settings(context: typer.Context) -> Config:
    from furymesh.cli.options import settings

    return settings(context, context.params.get("config"), context.params.get("data_dir"))


def _entry(file_id: str, name: str, incomplete: str) -> tuple[str, str]:
    from furymesh.core.paths import shown

    # What was typed already may be longer than the usual prefix.
    return file_id if len(incomplete) > PREFIX else file_id[:PREFIX], shown(name)
