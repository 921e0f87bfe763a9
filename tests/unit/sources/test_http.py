"""Reading ranges from HTTP servers, honest and hostile ones, over real connections."""

from __future__ import annotations

import email.utils
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.errors import LinkClosedError, UnavailableError
from furymesh.core.link import Address, Mirror
from furymesh.sources import guard as guarding
from furymesh.sources import http
from furymesh.sources.guard import Guard
from furymesh.sources.http import HttpServer
from furymesh.sources.source import MirrorBusyError, UnfitMirrorError
from tests.certificates import make_certificate, server_context, trusting
from tests.range_server import Asked, RangeServer, folder, head, one_file, serving
from tests.waiting import until

DATA = Random(5).randbytes(300_000)
SIZE = len(DATA)


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[HttpServer]:
    mirror = Mirror.parse(url)
    server = HttpServer(mirror, Guard(mirror, own=True, private=False))
    try:
        with trio.fail_after(10):
            yield server
    finally:
        await server.aclose()


async def part(
    server: HttpServer, offset: int, length: int, path: str = "", size: int = SIZE
) -> bytes:
    taken = bytearray()
    await server.read(path, size, offset, length, taken.extend)
    return bytes(taken)


async def refusal(misbehave: Callable[[Asked], bytes | None]) -> str:
    """What a reader says of a server that answers so."""
    async with (
        serving(RangeServer(one_file(DATA), misbehave=misbehave)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(UnfitMirrorError) as refused:
            await part(reader, 1000, 2000)
        return str(refused.value)


def partial_content(body: bytes = DATA[1000:3000], **fields: object) -> bytes:
    """An answer to the request of `refusal`, right but for what is given."""
    right = {"content_range": f"bytes 1000-2999/{SIZE}", "content_length": len(body)}
    return head(206, **{**right, **fields}) + body


# --- honest servers -------------------------------------------------------------------


async def test_ranges_come_over_one_connection_and_it_knows_the_size() -> None:
    async with serving(RangeServer(one_file(DATA))) as server, reading(server.url()) as reader:
        assert await reader.size() == SIZE
        assert await part(reader, 0, SIZE) == DATA
        assert await part(reader, 7, 100_000) == DATA[7:100_007]
        assert await part(reader, SIZE - 1, 1) == DATA[-1:]
        assert server.connections == 1
        first, second = server.asked[:2]
        assert first.headers["accept-encoding"] == "identity"
        assert "if-range" not in first.headers
        assert second.headers["if-range"] == server.tag


async def test_several_ranges_come_at_once() -> None:
    async with (
        serving(RangeServer(one_file(DATA), pause=0.1)) as server,
        reading(server.url()) as reader,
    ):
        got: dict[int, bytes] = {}

        async def fetch(offset: int) -> None:
            got[offset] = await part(reader, offset, 100_000)

        async with trio.open_nursery() as nursery:
            for offset in range(0, SIZE, 100_000):
                nursery.start_soon(fetch, offset)
        assert b"".join(got[offset] for offset in sorted(got)) == DATA
        assert server.most == 3


async def test_files_of_a_folder_lie_below_the_mirror(tmp_path: Path) -> None:
    (tmp_path / "base" / "a dir").mkdir(parents=True)
    (tmp_path / "base" / "a dir" / "ü?#%.bin").write_bytes(DATA)
    async with (
        serving(RangeServer(folder(tmp_path))) as server,
        reading(server.url("/base/?key=1")) as reader,
    ):
        assert await part(reader, 5, 10, "a dir/ü?#%.bin") == DATA[5:15]
        assert server.asked[0].path == "/base/a%20dir/%C3%BC%3F%23%25.bin?key=1"


async def test_an_empty_file_has_a_size() -> None:
    async with serving(RangeServer(one_file(b""))) as server, reading(server.url()) as reader:
        assert await reader.size() == 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name is this machine; which were asked for."""
    asked: list[str] = []

    async def resolved(address: Address, threads: object) -> list[str]:
        asked.append(address.host)
        return ["127.0.0.1"]

    monkeypatch.setattr(guarding, "resolved", resolved)
    return asked


async def test_a_name_is_resolved_once_and_asked_by_that_name(names: list[str]) -> None:
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        reading(server.url(host="m.example")) as reader,
    ):
        for _ in range(3):
            await part(reader, 0, 10)
        assert names == ["m.example"]
        assert server.asked[0].headers["host"] == f"m.example:{server.port}"


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving(RangeServer(one_file(DATA))) as server,
        serving(RangeServer(one_file(DATA))) as proxy,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        async with reading(server.url()) as reader:
            assert await part(reader, 0, 10) == DATA[:10]
        assert not proxy.asked


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_over_tls_both_versions_are_spoken_with_the_right_certificate(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    make_certificate(tmp_path, "m.example")
    tls = server_context(tmp_path, [protocol])
    async with serving(RangeServer(one_file(DATA), scheme="https"), tls=tls) as server:
        url = server.url(host="m.example")
        async with reading(url) as reader:
            with pytest.raises(UnfitMirrorError, match=r"certificate is not valid: self.signed"):
                await part(reader, 0, 10)
        monkeypatch.setattr(http, "_trusted", lambda: trusting(tmp_path))
        async with reading(url) as reader:
            assert await part(reader, 9, 200_000) == DATA[9:200_009]
            assert await part(reader, 0, 10) == DATA[:10]
        async with reading(server.url(host="other.example")) as reader:
            with pytest.raises(UnfitMirrorError, match="certificate is not valid: Hostname"):
                await part(reader, 0, 10)


async def test_over_http2_a_cancelled_read_leaves_room_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path, "localhost")
    monkeypatch.setattr(http, "_trusted", lambda: trusting(tmp_path))
    tls = server_context(tmp_path, ["h2"])
    async with (
        serving(RangeServer(one_file(DATA), scheme="https"), tls=tls) as server,
        reading(server.url(host="localhost")) as reader,
    ):
        with trio.CancelScope() as scope:
            await reader.read("", SIZE, 0, SIZE, lambda data: scope.cancel())
        assert scope.cancelled_caught
        assert await part(reader, 0, 10) == DATA[:10]
        assert server.connections == 2


# --- redirects ------------------------------------------------------------------------


def redirecting(times: int, target: str = "/moved{}") -> Callable[[Asked], bytes | None]:
    """Redirects so often, then serves."""

    def misbehave(asked: Asked) -> bytes | None:
        step = int(asked.path.removeprefix("/moved") or 0) if "/moved" in asked.path else 0
        if step >= times:
            return None
        return head(302, location=target.format(step + 1), content_length=0)

    return misbehave


async def test_five_redirects_are_followed_and_remembered() -> None:
    server = RangeServer(one_file(DATA), misbehave=redirecting(5))
    async with serving(server), reading(server.url()) as reader:
        assert await part(reader, 0, 10) == DATA[:10]
        assert await part(reader, 10, 10) == DATA[10:20]
        assert [asked.path for asked in server.asked[-2:]] == ["/moved5", "/moved5"]


async def test_six_redirects_are_too_many() -> None:
    assert await refusal(redirecting(6)) == "it redirects again and again"


async def test_a_redirect_that_expired_is_asked_for_again() -> None:
    def misbehave(asked: Asked) -> bytes | None:
        if asked.path == "/file":
            return head(307, location="/signed?until=9", content_length=0)
        return head(403, content_length=0) if expired and len(server.asked) == 3 else None

    expired = False
    server = RangeServer(one_file(DATA), misbehave=misbehave)
    async with serving(server), reading(server.url()) as reader:
        await part(reader, 0, 10)
        expired = True
        assert await part(reader, 10, 10) == DATA[10:20]
        paths = [asked.path for asked in server.asked]
        assert paths == ["/file", "/signed?until=9", "/signed?until=9", "/file", "/signed?until=9"]


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("http://169.254.169.254/latest/meta-data", "redirects to a private address"),
        ("http://[fe80::1]/", "redirects to a private address"),
        ("sftp://127.0.0.1/etc/passwd", "redirects from http to sftp"),
        ("file:///etc/passwd", "redirects to something that is no mirror"),
        ("gopher://127.0.0.1:70/_x", "redirects to something that is no mirror"),
        ("http://u:p@127.0.0.1/x", "redirects to something that is no mirror"),
        ("http://[::1", "redirects to something that is no mirror"),
        ("http://127.0.0.1:99999/", "redirects to something that is no mirror"),
    ],
)
async def test_redirects_that_are_not_followed(target: str, word: str) -> None:
    said = await refusal(lambda asked: head(301, location=target, content_length=0))
    assert said == f"it {word}"


async def test_a_redirect_out_of_tls_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path)
    monkeypatch.setattr(http, "_trusted", lambda: trusting(tmp_path))
    server = RangeServer(one_file(DATA), scheme="https")
    server.misbehave = lambda asked: head(302, location="http://localhost/", content_length=0)
    async with (
        serving(server, tls=server_context(tmp_path)),
        reading(server.url(host="localhost")) as reader,
    ):
        with pytest.raises(UnfitMirrorError, match="redirects from https to http"):
            await part(reader, 0, 10)


# --- servers that are of no use -------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (head(200, content_length=SIZE), "it does not serve parts of the file (no range requests)"),
        (head(404), "it does not have the file (HTTP 404)"),
        (head(403), "it does not give the file to everybody (HTTP 403)"),
        (head(416), "the file is shorter there"),
        (head(418), "it answers with HTTP status 418"),
        (head(302), "it answers with HTTP status 302"),
        (partial_content(content_range=f"bytes 1000-2999/{SIZE + 1}"),
         f"the file has {SIZE + 1} bytes there, not {SIZE}"),
        (partial_content(content_range=f"bytes 1001-3000/{SIZE}"),
         "it answers with another range than was asked for"),
        (partial_content(content_range="bytes 1000-2999"),
         "it answers with another range than was asked for"),
        (partial_content(content_range=f"bytes */{SIZE}"),
         "it answers with another range than was asked for"),
        (partial_content(content_range="", content_type="multipart/byteranges; boundary=x"),
         "it answers with another range than was asked for"),
        (partial_content(content_range="bytes 1000-2999/" + "9" * 5000),
         "it answers with another range than was asked for"),
        (partial_content(content_encoding="gzip"), "it compresses the file"),
        (partial_content(content_length=2001), "it announces another length than was asked for"),
        (head(206, content_range=f"bytes 1000-2999/{SIZE}", transfer_encoding="chunked")
         + b"fa0\r\n" + bytes(4000) + b"\r\n", "it sends more than was asked for"),
    ],
)  # fmt: skip
async def test_any_other_answer_than_the_range_makes_a_mirror_unfit(
    answer: bytes, word: str
) -> None:
    assert await refusal(lambda asked: answer) == word


async def test_a_body_without_end_is_read_no_further_than_asked_for() -> None:
    class Flood:
        """A server that never stops; `sent` bytes went out."""

        sent = 0

    async def flood(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(head(206, content_range=f"bytes 0-99/{SIZE}", connection="close"))
            try:
                while True:
                    await stream.send_all(bytes(65536))
                    Flood.sent += 65536
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, flood, [listener])
        port = listener.socket.getsockname()[1]
        async with reading(f"http://127.0.0.1:{port}/") as reader:
            with pytest.raises(UnfitMirrorError, match="sends more than was asked for"):
                await part(reader, 0, 100)
        nursery.cancel_scope.cancel()
    assert Flood.sent < 16 * 1024 * 1024


async def test_a_file_that_changes_is_noticed() -> None:
    async with serving(RangeServer(one_file(DATA))) as server, reading(server.url()) as reader:
        await part(reader, 0, 10)
        server.tag = '"two"'
        with pytest.raises(UnfitMirrorError, match="the file has changed there"):
            await part(reader, 10, 10)


async def test_a_changed_validator_is_noticed_even_in_a_range() -> None:
    def misbehave(asked: Asked) -> bytes:
        return partial_content(last_modified=f"Sat, 21 Nov 2026 18:00:0{len(server.asked)} GMT")

    server = RangeServer(one_file(DATA), misbehave=misbehave)
    async with serving(server), reading(server.url()) as reader:
        await part(reader, 1000, 2000)
        with pytest.raises(UnfitMirrorError, match="the file has changed there"):
            await part(reader, 1000, 2000)


async def test_who_does_not_tell_the_size_cannot_be_shared_from() -> None:
    answer = head(206, content_range="bytes 0-0/*", content_length=1) + b"x"
    async with (
        serving(RangeServer(one_file(DATA), misbehave=lambda asked: answer)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(UnfitMirrorError, match="does not tell the size"):
            await reader.size()
        assert await part(reader, 0, 1) == b"x"


# --- servers that may be better later -------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "the connection to it broke"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the connection to it broke"),
        (head(206, x="y" * 300_000), "the connection to it broke"),
        (head(500), "it cannot answer now (HTTP 500)"),
        (partial_content()[:-1], "the connection to it broke"),
        (partial_content(DATA[:1999], content_length=2000), "the connection to it broke"),
    ],
)
async def test_faults_that_may_pass(answer: bytes, word: str) -> None:
    async with (
        serving(RangeServer(one_file(DATA), misbehave=lambda asked: answer)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(UnavailableError) as failed:
            await part(reader, 1000, 2000)
        assert str(failed.value) == word


async def test_what_is_said_to_be_less_is_less() -> None:
    body = head(206, content_range=f"bytes 1000-2999/{SIZE}", connection="close") + DATA[1000:2000]
    async with (
        serving(RangeServer(one_file(DATA), misbehave=lambda asked: body)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(LinkClosedError, match="less than was asked for"):
            await part(reader, 1000, 2000)


async def test_nobody_there_is_told_without_a_wait() -> None:
    async with serving(RangeServer(one_file(DATA))) as server:
        url = server.url()
    async with reading(url) as reader:
        with pytest.raises(UnavailableError, match="no connection to it"):
            await part(reader, 0, 10)


async def test_a_server_that_falls_silent_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.2)
    async with (
        serving(RangeServer(one_file(DATA), pause=5.0)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(UnavailableError, match="it does not answer"):
            await part(reader, 0, 10)


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("7", 7, 7),
        ("999999999", 3600, 3600),
        ("in 100 s", 90, 101),
        ("Sat, 21 Nov 1998 18:00:00 GMT", 0, 0),
    ],
)
async def test_a_busy_server_is_believed_for_how_long(field: str, low: float, high: float) -> None:
    if field == "in 100 s":
        field = email.utils.formatdate(time.time() + 100, usegmt=True)
    answer = head(503, retry_after=field, content_length=0)
    async with (
        serving(RangeServer(one_file(DATA), misbehave=lambda asked: answer)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(MirrorBusyError) as busy:
            await part(reader, 0, 10)
        assert busy.value.seconds is not None
        assert low <= busy.value.seconds <= high


@pytest.mark.parametrize("field", ["soon", "9" * 400, ""])
async def test_a_busy_server_need_not_say_for_how_long(field: str) -> None:
    answer = head(429, retry_after=field, content_length=0)
    async with (
        serving(RangeServer(one_file(DATA), misbehave=lambda asked: answer)) as server,
        reading(server.url()) as reader,
    ):
        with pytest.raises(MirrorBusyError) as busy:
            await part(reader, 0, 10)
        assert busy.value.seconds is None


async def test_a_cancelled_read_is_over_at_once() -> None:
    async with (
        serving(RangeServer(one_file(DATA), pause=5.0)) as server,
        reading(server.url()) as reader,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(part, reader, 0, 10)
            await until(lambda: server.open)
            nursery.cancel_scope.cancel()
        assert server.connections == 1
