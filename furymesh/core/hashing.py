"""The hash functions a manifest may choose from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from blake3 import blake3

from furymesh.core.errors import InvalidManifestError, UsageError
from furymesh.core.secrets import quoted

Buffer = bytes | bytearray | memoryview


class Hasher(Protocol):
    """A hash in progress; both libraries behind it release the GIL on big updates."""

    def update(self, data: Buffer, /) -> object: ...

    def digest(self) -> bytes: ...


class HashAlgorithm(Enum):
    """A 256-bit hash: BLAKE3 (the default) or SHA-256."""

    BLAKE3 = ("blake3", 1, blake3)
    SHA256 = ("sha256", 2, hashlib.sha256)

    def __init__(self, label: str, code: int, hasher: Callable[..., Hasher]) -> None:
        self.label = label
        self.code = code
        self.hasher = hasher

    def digest(self, data: Buffer) -> bytes:
        """The 32-byte hash of `data`."""
        return self.hasher(data).digest()

    @classmethod
    def from_label(cls, label: str) -> HashAlgorithm:
        """The algorithm a user named; raises UsageError."""
        for algorithm in cls:
            if algorithm.label == label.strip().lower():
                return algorithm
        known = " or ".join(algorithm.label for algorithm in cls)
        raise UsageError(f"unknown hash {quoted(label)}: use {known}")

    @classmethod
    def from_code(cls, code: int) -> HashAlgorithm:
        """The algorithm of a manifest header's hash byte; raises InvalidManifestError."""
        for algorithm in cls:
            if algorithm.code == code:
                return algorithm
        raise InvalidManifestError(
            f"the manifest uses hash number {code}, which this version does not know"
        )
