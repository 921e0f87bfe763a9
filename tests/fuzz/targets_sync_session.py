"""Targets of a session of folder sync: its messages, and a server's disk behind them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil

from furymesh.core.errors import ProtocolError, UsageError
from furymesh.sync.receiving import Receiver
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.exchange import Exchange
from tests.fuzz.engine import Target
from tests.fuzz.material import NAMES, place, put
from tests.fuzz.targets_wire import joined, message, parts_of

CONTENT = b"0123456789"
DIGEST = hashlib.sha256(CONTENT).digest()
OTHER = hashlib.sha256(CONTENT[::-1]).digest()


def _exchange(client: bool) -> Exchange:
    exchange = Exchange(client=client)
    for step, mine in ((m.Identify("laptop"), client), (m.Ready(), not client)):
        (exchange.sent if mine else exchange.received)(step)
    return exchange


def sync_session(data: bytes) -> None:
    """Whatever a client says, it gets files into its own folder and nowhere else."""
    root = place("sync_session")
    shutil.rmtree(root)
    folder = root / "in" / "laptop"
    put(folder / "held", CONTENT)
    put(folder / "gone", CONTENT[::-1])
    put(root / "in" / "other", CONTENT)
    exchange = _exchange(client=False)
    receiver = Receiver(
        folder, root / "data", sender="192.0.2.1", mirror=True, cancelled=lambda: False
    )
    try:
        parts = parts_of(data)
        for part in parts:
            heard = codec.decode(part)
            if not isinstance(heard, m.SyncMessage):
                continue
            exchange.received(heard)
            content = None
            if isinstance(heard, m.ArchiveData):
                content = memoryview(next(parts, b"")[: heard.length].ljust(heard.length, b"."))
            _note(exchange, receiver, receiver.work([(heard, content)]))
        _note(exchange, receiver, receiver.commit())
        if exchange.is_over():
            with contextlib.suppress(UsageError):  # so much that it is rather a mistake
                receiver.remove(receiver.extras(force=False))
            _note(exchange, receiver, receiver.put_off())
    finally:
        receiver.close(complete=False)
        assert set(os.listdir(root)) <= {"data", "in"}
        assert sorted(os.listdir(root / "in")) == ["laptop", "other"]
        assert (root / "in" / "other").read_bytes() == CONTENT


def _note(exchange: Exchange, receiver: Receiver, replies: list[m.SyncMessage]) -> None:
    """What the server says is legal, and can be understood."""
    for reply in replies:
        exchange.sent(reply)
        assert codec.decode(codec.encode(reply)) == reply
    for file in receiver.store.finished:
        exchange.done(file)
    receiver.store.finished.clear()


def sync_replies(data: bytes) -> None:
    """Whatever a server says, the client's machine bears it."""
    exchange = _exchange(client=True)
    for size in (10, 2000, 0):
        exchange.sent(m.ArchiveInfo(("f",), (size,), (0,), (0o644,), bytes(32), not size))
    for part in parts_of(data):
        heard = codec.decode(part)
        if isinstance(heard, m.SyncMessage):
            exchange.received(heard)


def _info(*files: tuple[str, int, bytes], last: bool = True) -> m.ArchiveInfo:
    paths, sizes, digests = zip(*files, strict=True)
    count = len(files)
    return m.ArchiveInfo(paths, sizes, (10**18,) * count, (0o644,) * count, b"".join(digests), last)


_UNKNOWN = bytes(32)
_FOLDERS = m.ArchiveInfo(("new/in/", "held/"), (0, 0), (0, 0), (0o400,) * 2, bytes(64), True)
CLIENT_SAYS: tuple[m.Message, ...] = (
    m.Identify("laptop", mirror=True),
    _info(("held", 10, DIGEST), ("copy", 10, DIGEST), ("deep/new", 10, OTHER), last=False),
    _info(("first", 7, _UNKNOWN), ("empty", 0, _UNKNOWN), ("../up", 5, _UNKNOWN)),
    m.ArchiveData((3,), (0,), (7,), hashlib.sha256(b"content").digest(), 7),
    m.ArchiveData((2, 3), (0, 3), (10, 4), OTHER + DIGEST, 14),
    m.ArchiveSkip((3,)),
    m.ArchiveGone((0,)),
)
SERVER_SAYS: tuple[m.Message, ...] = (
    m.ArchiveTasks((0,), (5,)),
    m.ArchiveTasks((), (), (1,), (), 0),
    m.ArchiveTasks((), (), (), (2,), 0),
    m.ArchiveTasks((0,), (0,), again=True),
    m.ArchiveWritten(1),
    m.ArchiveFailed(1, "it is refused"),
    m.ArchiveExtras(("gone", "deep/gone")),
    m.NextSync(300, 1, "nothing was removed"),
    m.Busy(1),
    m.Ready(),
)
_CLIENT, _SERVER = (tuple(map(codec.encode, said)) for said in (CLIENT_SAYS, SERVER_SAYS))
_FRAMES = tuple(len(part).to_bytes(2, "big") + part for part in (*_CLIENT, *_SERVER))
_VARINTS = (b"\xff" * 4 + b"\x0f", b"\xff" * 9 + b"\x01", b"\x80" * 10)

TARGETS = (
    Target(
        "sync_message",
        message,
        lambda: {
            f"{number:02}-{type(each).__name__}": codec.encode(each)
            for number, each in enumerate((*CLIENT_SAYS, *SERVER_SAYS))
        },
        (ProtocolError,),
        (*_CLIENT, *_SERVER, *_VARINTS),
    ),
    Target(
        "sync_session",
        sync_session,
        lambda: {
            "files": joined(*_CLIENT[1:4], b"content"),
            "held": joined(codec.encode(_info(("held", 10, DIGEST)))),
            "folders": joined(codec.encode(_FOLDERS)),
            "wrong": joined(codec.encode(_info(("a/b", 7, _UNKNOWN))), _CLIENT[3], b"con"),
        },
        (ProtocolError,),
        (*_FRAMES, *_VARINTS, *NAMES, b"held", b"../", b"gone/"),
    ),
    Target(
        "sync_replies",
        sync_replies,
        lambda: {
            "asked": joined(*_SERVER[:4], _SERVER[5]),
            "over": joined(_SERVER[0], *[codec.encode(m.ArchiveTasks())] * 2, *_SERVER[6:7]),
        },
        (ProtocolError,),
        (*_FRAMES, *_VARINTS),
    ),
)
