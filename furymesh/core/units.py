"""Sizes, rates and durations as people write and read them.

Decimal prefixes are powers of 1,000 and binary ones of 1,024, as in IEC 80000-13:
12M is 12,000,000 and 12MiB is 12,582,912.
"""

from __future__ import annotations

import re
from decimal import Decimal

from furymesh.core.errors import UsageError
from furymesh.core.secrets import quoted

MAX_SIZE = (1 << 63) - 1  # what a file offset can hold

_PREFIXES = "kMGTPE"
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,9})?)\s*(?:([kmgtpe])(i)?)?b?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in "4096", "12M", "1.5 GB" or "256KiB", case ignored; raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if not match or ("." in match[1] and not match[2]):
        raise UsageError(f"{quoted(text)} is not a size: write 4096, 256K, 12M, 12MiB or 1.5G")
    number, prefix, binary = match.groups()
    power = _PREFIXES.lower().index(prefix.lower()) + 1 if prefix else 0
    size = int(Decimal(number) * (1024 if binary else 1000) ** power)
    if size > MAX_SIZE:
        raise UsageError(f"{quoted(text)} is too large: the limit is {MAX_SIZE} bytes")
    return size


def format_size(size: float) -> str:
    """Bytes with a decimal prefix and one decimal: "1.2 MB", "999 B"."""
    if size < 1000:
        return f"{int(size)} B"
    value, power = size / 1000, 0
    # 999.95 would round to four digits: the next prefix says it better.
    while value >= 999.95 and power < len(_PREFIXES) - 1:
        value /= 1000
        power += 1
    return f"{value:.1f} {_PREFIXES[power]}B"


def format_rate(rate: float) -> str:
    """Bytes a second: "1.2 MB/s"."""
    return f"{format_size(rate)}/s"


def format_duration(seconds: float) -> str:
    """A time span in its two largest units: "4.2s", "2m 05s", "1h 02m", "3d 04h"."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"
