"""State files in JSON that notice when a bit of them has changed.

    {"version": 2, "blake3": "<32 hex digits>", "entry": <the value>}

and a newline. The checksum is that of the value's bytes as they stand in the
file, and what surrounds it has only one form, so no bit of the file is free.
Files of before, which are the bare value, are read as well: whoever reads them
checks that they have every key that such a value must have, and what was once
written with a checksum never has.
"""

from __future__ import annotations

import json
import re
from typing import Any

from blake3 import blake3

_DIGEST_SIZE = 16  # bytes: against accidents, not against people
_FORM = re.compile(
    rb'\{"version": 2, "blake3": "([0-9a-f]{%d})", "entry": (.*)\}\n' % (2 * _DIGEST_SIZE),
    re.DOTALL,
)


def encode(value: dict[str, Any]) -> bytes:
    """The bytes of a file that holds `value`."""
    body = json.dumps(value, ensure_ascii=True).encode("ascii")
    digest = _digest(body)
    return b'{"version": 2, "blake3": "' + digest + b'", "entry": ' + body + b"}\n"


def decode(raw: bytes) -> tuple[Any, bool]:
    """The value in a file, and whether a checksum vouched for it.

    Raises ValueError or RecursionError if it is not JSON or has changed. A bare
    value is returned as it is, so it may be anything.
    """
    match = _FORM.fullmatch(raw)
    if match is None:
        return json.loads(raw), False
    if _digest(match[2]) != match[1]:
        raise ValueError("its checksum is wrong")
    return json.loads(match[2]), True


def _digest(body: bytes) -> bytes:
    return blake3(body).hexdigest(_DIGEST_SIZE).encode("ascii")
