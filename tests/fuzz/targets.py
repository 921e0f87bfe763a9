"""Every target, by name: one for each parser of what comes from outside."""

from __future__ import annotations

from tests.fuzz import (
    targets_core,
    targets_disk,
    targets_folder,
    targets_handshake,
    targets_keys,
    targets_lan,
    targets_node,
    targets_sync,
    targets_sync_session,
    targets_texts,
    targets_tracker,
    targets_wire,
)
from tests.fuzz.engine import Report, Target, fuzz

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        targets_texts,
        targets_core,
        targets_handshake,
        targets_wire,
        targets_disk,
        targets_keys,
        targets_lan,
        targets_node,
        targets_sync,
        targets_sync_session,
        targets_folder,
        targets_tracker,
    )
    for target in module.TARGETS
}


def fuzz_by_name(name: str, seed: int, seconds: float) -> Report:
    """`fuzz` for another process, which cannot be handed a target."""
    return fuzz(TARGETS[name], seed=seed, seconds=seconds)
