"""Configurations under which a process finds nobody by itself.

Whatever else runs on this machine or its network, tests meet only whom they name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from furymesh.node.config import Config

ALONE = {"lan": {"enabled": False}, "dht": {"enabled": False}, "port_mapping": False}
TEXT = "discovery: {lan: {enabled: false}, dht: {enabled: false}, port_mapping: false}\n"


def apart(values: Mapping[str, Any]) -> Config:
    """A configuration with these values, as in the file, that finds no peers by itself."""
    return Config.model_validate({"discovery": ALONE, **values})
