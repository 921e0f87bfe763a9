"""``sftp://[user@]host[:port]/path``, as people write it and as links carry it.

The path is the server's own, from its root (draft-ietf-secsh-scp-sftp-ssh-uri);
one that begins with ``/~/`` begins at the user's home, as curl has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from furymesh.core.errors import UsageError

SCHEME = "sftp://"
_URL = re.compile(
    r"sftp://(?:(?P<user>[^@/]*)@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^][:/@]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ServerPath:
    """A path on a server; `path` is relative to the user's home unless it begins with a slash."""

    host: str
    port: int | None
    username: str | None
    path: str


def parse(text: str) -> ServerPath:
    """Read a URL; raises UsageError, which repeats nothing of it: it may hold a password."""
    match = _URL.fullmatch(text)
    if not match:
        raise UsageError(
            "that is not an SFTP URL: write sftp://user@host/path, with %3F for ? and %23 for #"
        )
    user, host, port, path = match.group("user", "host", "port", "path")
    if user is not None and ":" in user:
        raise UsageError(
            "the URL holds a password, which all users of this machine can see: leave it out;"
            " you are asked for it where one is needed"
        )
    path = _decoded(path)
    home = path.startswith("/~/") or path == "/~"
    return ServerPath(
        host=_decoded(host.strip("[]")),
        port=None if port is None else int(port),
        username=_decoded(user) if user else None,
        path=(path[3:] or ".") if home else path,
    )


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise UsageError("the URL is not UTF-8 once its %-codes are read") from None
