"""Announcing over HTTP and HTTPS.

The name is resolved elsewhere and the request made to the address, so that what
was checked is what is asked, and IPv4 and IPv6 are asked each. Proxies of the
environment are not used: a tracker lists who asks, and peers could not be dialled
through one either. Certificates are checked against those the system trusts.
"""

from __future__ import annotations

import errno
import os
import ssl
from functools import cache
from urllib.parse import urljoin

import h11
import trio

from furymesh import __version__
from furymesh.core.errors import ProtocolError, UnavailableError, UsageError
from furymesh.core.link import Tracker
from furymesh.discovery.tracker_places import check_place, check_redirect
from furymesh.net.addresses import family_of
from furymesh.net.resolving import resolved
from furymesh.wire.bencode import MAX_SIZE
from furymesh.wire.tracker import Announce, Answer, Refusal, parse_answer, query

HTTP_SECONDS = 15.0  # for the whole of it, redirects included
MAX_REDIRECTS = 3  # to https, to another host, to another path
MAX_HEAD = 16 * 1024  # bytes of an answer's head; those in use have some hundred
RECEIVE_SIZE = 16 * 1024  # bytes at a time


class HttpAsker:
    """Asks one tracker over HTTP; keeps no connection, because intervals are long."""

    def __init__(self, tracker: Tracker, threads: trio.CapacityLimiter) -> None:
        """`threads`, as in `look_up`, find whereto it redirects."""
        self._tracker = tracker
        self._threads = threads

    def close(self) -> None:
        """There is nothing to close."""

    async def ask(self, ip: str, announce: Announce) -> Answer | Refusal:
        """Announce to the tracker at `ip`; raises UnavailableError or ProtocolError."""
        check_place(self._tracker, ip)
        try:
            with trio.fail_after(HTTP_SECONDS):
                return parse_answer(await self._follow(ip, query(announce)))
        except trio.TooSlowError:
            raise UnavailableError(f"no answer within {HTTP_SECONDS:g} s") from None
        except h11.RemoteProtocolError:
            raise ProtocolError("it does not speak HTTP") from None
        except trio.BrokenResourceError as error:
            tls = isinstance(error.__cause__, ssl.SSLError)
            reason = "no secure connection" if tls else "the connection broke"
            raise UnavailableError(reason) from None
        except OSError as error:
            code = error.errno or errno.EIO
            raise UnavailableError(f"no connection: {os.strerror(code).lower()}") from None

    async def _follow(self, first: str, fields: str) -> bytes:
        """The body of the answer, wherever it is found."""
        where, ip = self._tracker, first
        joint = "&" if "?" in where.path else "?"
        target = f"{where.path or '/'}{joint}{fields}"
        for _ in range(MAX_REDIRECTS + 1):
            body, location = await _get(where, ip, target)
            if location is None:
                return body
            where = _redirected(where, target, location)
            target = where.path or "/"
            ip = (await resolved(where.address, self._threads, family_of(ip)))[0]
            check_redirect(where, ip, first)
        raise UnavailableError("it redirects again and again")


async def _get(where: Tracker, ip: str, target: str) -> tuple[bytes, str | None]:
    """The body of an answer, or whereto it redirects."""
    stream: trio.abc.Stream = await _connected(ip, where.address.port)
    try:
        if where.scheme == "https":
            stream = trio.SSLStream(
                stream, _trusted(), server_hostname=where.address.host, https_compatible=True
            )
        return await _exchange(stream, str(where.address), target)
    finally:
        await trio.aclose_forcefully(stream)


async def _connected(ip: str, port: int) -> trio.SocketStream:
    """A connection to the one address; raises the OSError that says why there is none."""
    sock = trio.socket.socket(family_of(ip), trio.socket.SOCK_STREAM)
    try:
        await sock.connect((ip, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _exchange(stream: trio.abc.Stream, host: str, target: str) -> tuple[bytes, str | None]:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    headers = [
        ("Host", host),
        ("User-Agent", f"furymesh/{__version__}"),
        # A compressed answer would have to be limited twice.
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    question = http.send(h11.Request(method="GET", target=target, headers=headers))
    await stream.send_all((question or b"") + (http.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(RECEIVE_SIZE)))
        elif isinstance(event, h11.Response):
            if (location := _checked_head(event)) is not None:
                return b"", location
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_SIZE:
                raise ProtocolError(f"its answer has more than {MAX_SIZE} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body), None


def _checked_head(response: h11.Response) -> str | None:
    """Whereto an answer redirects, if it does; raises UnavailableError, ProtocolError."""
    fields = {bytes(name): bytes(value).decode("latin-1") for name, value in response.headers}
    if response.status_code in (301, 302, 303, 307, 308) and b"location" in fields:
        return fields[b"location"]
    if response.status_code != 200:
        raise UnavailableError(f"it answers with HTTP status {response.status_code}")
    if fields.get(b"content-encoding", "identity") != "identity":
        raise ProtocolError("it compresses what was asked for as it is")
    return None


def _redirected(where: Tracker, target: str, location: str) -> Tracker:
    """Where a redirect leads to: another tracker over HTTP, and not out of TLS."""
    try:
        there = Tracker.parse(urljoin(f"{where.scheme}://{where.address}{target}", location))
    except (UsageError, ValueError):
        raise UnavailableError("it redirects to something that is no tracker") from None
    if there.scheme == "udp" or (where.scheme == "https" and there.scheme != "https"):
        raise UnavailableError(f"it redirects from {where.scheme} to {there.scheme}")
    return there


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()
