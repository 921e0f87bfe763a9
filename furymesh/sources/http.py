"""A mirror over HTTP or HTTPS: range requests over connections that are kept.

Asked for is one range of a file of one size, and any other answer makes the mirror
unfit. Requests go to an address that `Guard` allowed, with the name in the Host field
and in the TLS handshake, where the certificate is checked against it. Proxies of the
environment are not used: one would look names up by itself.

Always true: a generator of httpx is read to its end, or cancelled where it waits for
the network. None is left half-read, for then nobody would close it in time.
"""

from __future__ import annotations

import email.utils
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TypeVar
from urllib.parse import quote, urldefrag, urljoin

import httpx
import trio

from furymesh import __version__
from furymesh.core.errors import FuryMeshError, LinkClosedError, UnavailableError, UsageError
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.link import Mirror
from furymesh.core.paths import shown
from furymesh.core.peer_state import MIRROR_REQUESTS
from furymesh.sources.guard import Guard
from furymesh.sources.source import Found, MirrorBusyError, Take, UnfitMirrorError

CONNECT_SECONDS = 10.0  # a SYN and two retries, then TLS
READ_SECONDS = 15.0  # of silence in an answer; the scheduler asks others long before
MAX_REDIRECTS = 5  # to https, to another host, to a signed URL
MAX_REMEMBERED = 1024  # files of a folder whose validators or redirects are kept
MAX_BUSY_SECONDS = 3600.0  # it may ask for more, but not for ever

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,20})-([0-9]{1,20})|\*)/([0-9]{1,20}|\*)")
_REDIRECTS = (301, 302, 303, 307, 308)
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"
_HAS_HTTP2 = find_spec("h2") is not None

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of a file whose size is known, or is to be learnt."""

    path: str
    offset: int
    length: int
    size: int | None = None


class HttpServer:
    """One mirror; see `Server`. Close it."""

    def __init__(self, mirror: Mirror, guard: Guard) -> None:
        self._mirror = mirror
        self._guard = guard
        self._transport = _new_transport()
        self._reading = 0
        self._stale = False  # a connection has an answer that nobody reads
        self._validators: OrderedDict[str, str] = OrderedDict()
        self._moved: OrderedDict[str, Mirror] = OrderedDict()

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def read(self, path: str, size: int, offset: int, length: int, take: Take) -> None:
        await self._follow(_Range(path, offset, length, size), take)

    async def size(self) -> int:
        return await self._follow(_Range("", 0, 1), lambda data: None)

    async def look(self) -> Found:
        # Folders are shown to people only, by each web server in its own way.
        return Found((Entry("", EntryKind.FILE, await self.size()),), single=True)

    async def _follow(self, wanted: _Range, take: Take) -> int:
        """Ask where the file is, or was redirected to before; the file's size."""
        path = wanted.path
        moved = self._moved.pop(path, None)
        if moved is not None:
            # Signed URLs expire; then the mirror gives another.
            with suppress(UnfitMirrorError):
                size = await self._get(moved, wanted, take)
                if isinstance(size, int):
                    _remember(self._moved, path, moved)
                    return size
        where = self._mirror.below(path)
        for redirects in range(MAX_REDIRECTS + 1):
            answer = await self._get(where, wanted, take)
            if isinstance(answer, int):
                if redirects:
                    _remember(self._moved, path, where)
                return answer
            where = _redirected(where, answer)
        raise UnfitMirrorError("it redirects again and again")

    async def _get(self, where: Mirror, wanted: _Range, take: Take) -> int | str:
        """The size of the file whose range was taken in, or whereto the answer redirects."""
        ip = await self._guard.ip(where.address)
        host = f"[{ip}]" if ":" in ip else ip
        last = wanted.offset + wanted.length - 1
        headers = {
            "Host": where.authority,
            "User-Agent": f"furymesh/{__version__}",
            # Ranges are of the file itself, and what is compressed has another length.
            "Accept-Encoding": "identity",
            "Range": f"bytes={wanted.offset}-{last}",
        }
        if wanted.path in self._validators:
            headers["If-Range"] = self._validators[wanted.path]
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None)
        request = httpx.Request(
            "GET",
            f"{where.scheme}://{host}:{where.address.port}{where.path}",
            headers=headers,
            extensions={"sni_hostname": where.address.host, "timeout": timeout.as_dict()},
        )
        await self._renew()
        response: httpx.Response | None = None
        self._reading += 1
        try:
            with _translating():
                response = await self._transport.handle_async_request(request)
                try:
                    answer = self._check(response, wanted, where)
                    if response.status_code == 206:
                        await _take_in(response, wanted.length, take)
                    return answer
                finally:
                    await response.aclose()
        except trio.Cancelled:
            # Over HTTP/2 the rest of the answer would use up the connection's window.
            self._stale |= response is not None and response.http_version == "HTTP/2"
            raise
        except UnavailableError:
            if response is None:
                self._guard.failed(where.address)
            raise
        finally:
            self._reading -= 1

    async def _renew(self) -> None:
        if self._stale and not self._reading:
            self._stale = False
            old, self._transport = self._transport, _new_transport()
            await old.aclose()

    def _check(self, response: httpx.Response, wanted: _Range, where: Mirror) -> int | str:
        """The size of the file, or whereto the answer redirects; raises if it is unfit."""
        status, headers = response.status_code, response.headers
        if status in _REDIRECTS and "location" in headers:
            return headers["location"]
        if status == 416 and wanted.size is None and headers.get("content-range") == "bytes */0":
            return 0
        what = shown(wanted.path) or "the file"
        if status in (200, 403) and where.path.partition("?")[0].endswith("/"):
            raise UnfitMirrorError(
                f"{what} seems to be a folder, which web servers do not list for programs:"
                " share a copy of it, with --mirror"
            )
        if status != 206:
            raise _refusal(response, what, before=wanted.path in self._validators)
        if headers.get("content-encoding", "identity") != "identity":
            raise UnfitMirrorError(f"it compresses {what}")
        total = _checked_range(headers.get("content-range", ""), wanted, what)
        if headers.get("content-length", str(wanted.length)) != str(wanted.length):
            raise UnfitMirrorError("it announces another length than was asked for")
        self._check_validator(headers, wanted.path, what)
        return total

    def _check_validator(self, headers: httpx.Headers, path: str, what: str) -> None:
        tag = headers.get("etag", "")
        validator = tag if tag and not tag.startswith("W/") else headers.get("last-modified", "")
        before = self._validators.get(path)
        if before is not None and validator != before:
            raise UnfitMirrorError(f"{what} has changed there")
        if validator:
            _remember(self._validators, path, validator)


def _checked_range(text: str, wanted: _Range, what: str) -> int:
    """The size of the file by a Content-Range field."""
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None or found[1] is None:
        raise UnfitMirrorError("it answers with another range than was asked for")
    total = int(found[3]) if found[3] != "*" else wanted.size
    if total is None:
        raise UnfitMirrorError(f"it does not tell the size of {what}")
    if wanted.size is not None and total != wanted.size:
        raise UnfitMirrorError(f"{what} has {total} bytes there, not {wanted.size}")
    if (int(found[1]), int(found[2])) != (wanted.offset, wanted.offset + wanted.length - 1):
        raise UnfitMirrorError("it answers with another range than was asked for")
    return total


def _refusal(response: httpx.Response, what: str, *, before: bool) -> FuryMeshError:
    """What an answer without the range means; `before`: ranges of the file came earlier."""
    status = response.status_code
    if status in (429, 503):
        seconds = _seconds(response.headers.get("retry-after", ""))
        return MirrorBusyError(f"it is busy (HTTP {status})", seconds)
    if status == 408 or status >= 500:
        return UnavailableError(f"it cannot answer now (HTTP {status})")
    if status == 200 and before:
        return UnfitMirrorError(f"{what} has changed there")
    reasons = {
        200: f"it does not serve parts of {what} (no range requests)",
        401: f"it does not give {what} to everybody (HTTP 401)",
        403: f"it does not give {what} to everybody (HTTP 403)",
        404: f"it does not have {what} (HTTP 404)",
        410: f"it does not have {what} (HTTP 410)",
        416: f"{what} is shorter there",
    }
    return UnfitMirrorError(reasons.get(status, f"it answers with HTTP status {status}"))


def _seconds(text: str) -> float | None:
    """The seconds of a Retry-After field (RFC 9110, 10.2.3): a number of them or a date."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), MAX_BUSY_SECONDS)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_BUSY_SECONDS)


async def _take_in(response: httpx.Response, length: int, take: Take) -> None:
    """Give `take` the body as it comes; raises unless it has exactly this length."""
    left = length
    with trio.CancelScope() as scope:
        async for data in response.aiter_raw():
            left -= len(data)
            if left < 0:
                scope.cancel()  # felt where the generator waits; see above
            else:
                take(data)
    if left < 0:
        raise UnfitMirrorError("it sends more than was asked for")
    if left:
        raise LinkClosedError("it sent less than was asked for")


def _redirected(where: Mirror, location: str) -> Mirror:
    """Where a redirect leads to: over HTTP again, and not out of TLS."""
    try:
        target = urldefrag(urljoin(str(where), location.strip()))[0]
        there = Mirror.parse(quote(target, safe=_URL_CHARACTERS))
    except (UsageError, ValueError):
        raise UnfitMirrorError("it redirects to something that is no mirror") from None
    if there.scheme == "sftp" or (where.scheme == "https" and there.scheme != "https"):
        raise UnfitMirrorError(f"it redirects from {where.scheme} to {there.scheme}")
    return there


def _new_transport() -> httpx.AsyncHTTPTransport:
    """A pool of connections; it keeps no cookies and follows nothing by itself."""
    return httpx.AsyncHTTPTransport(
        verify=_trusted(),
        http2=_HAS_HTTP2,
        limits=httpx.Limits(max_connections=MIRROR_REQUESTS, keepalive_expiry=READ_SECONDS),
    )


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextmanager
def _translating() -> Iterator[None]:
    """Turn what a request raises into an error of furymesh."""
    try:
        yield
    except httpx.TimeoutException:
        raise UnavailableError("it does not answer") from None
    except _faults() as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                reason = f"its certificate is not valid: {cause.verify_message}"
                raise UnfitMirrorError(reason) from None
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.ConnectError):
            raise UnavailableError("no connection to it") from None
        raise LinkClosedError("the connection to it broke") from None


@cache
def _faults() -> tuple[type[Exception], ...]:
    """What a broken or hostile server makes the libraries raise."""
    if not _HAS_HTTP2:
        return (httpx.HTTPError,)
    from h2.exceptions import H2Error
    from hyperframe.exceptions import HyperframeError

    return (httpx.HTTPError, H2Error, HyperframeError)


def _remember(table: OrderedDict[str, T], key: str, value: T) -> None:
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        table.popitem(last=False)
