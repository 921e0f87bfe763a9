"""Targets that lie on a disk: files of ours that somebody else may have written."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
from pathlib import Path
from unittest.mock import patch

from blake3 import blake3

from furymesh.cli import resume_view
from furymesh.core.errors import (
    AlreadyRunningError,
    ConfigError,
    DamagedResumeDataError,
    EnvironmentFault,
    InvalidManifestError,
    LocalDataError,
    UsageError,
)
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import node_id_text
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.link import Link, Tracker
from furymesh.core.manifest import Manifest
from furymesh.core.snapshot import recover
from furymesh.discovery import dht_state
from furymesh.node.config import load_config
from furymesh.node.orders import Orders
from furymesh.storage import lock as lock_module
from furymesh.storage.bans import Ban, BanStore
from furymesh.storage.catalog import Catalog
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.lock import FileLock
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.order import Order, Settings
from furymesh.storage.part_names import MAX_NAME_BYTES, fitting_name, part_path
from furymesh.storage.placing import final_path, place_part
from furymesh.storage.resume_reader import list_all, peek, resume_path
from furymesh.storage.scan import Facts
from tests.fuzz import targets_core as core
from tests.fuzz.engine import Target
from tests.fuzz.material import BOOT, FILE_ID, JSON, KEY, NODE_ID, place, put, text_of
from tests.fuzz.targets_core import metadata_json, metadata_snapshot

NOW = 1_800_000_000.0  # when bans are read


def checked(body: bytes) -> bytes:
    """The form of a state file around a body from elsewhere, its checksum good."""
    digest = blake3(body).hexdigest(16).encode()
    return b'{"version": 2, "blake3": "' + digest + b'", "entry": ' + body + b"}\n"


def catalog(data: bytes) -> None:
    """An entry as it is, and as the body of a file whose checksum is good."""
    shared = Catalog(place("catalog"))
    errors = []
    for raw in (data, checked(data)):
        put(place("catalog") / "catalog" / f"{FILE_ID.hex()}.json", raw)
        listing = shared.list()
        assert len(listing.entries) + len(listing.damaged) == 1
        try:
            entry = shared.get(FILE_ID)
        except LocalDataError as error:
            errors.append(error)
            continue
        assert entry is not None
        # What was read can be acted upon, and written again.
        with contextlib.suppress(OSError):
            Path(entry.place).stat()
        shared.add(entry, Manifest.build(HashAlgorithm.BLAKE3, Geometry(0, 16_384), b""))
        assert shared.get(FILE_ID) == entry
    if len(errors) == 2:
        raise errors[-1]


def stored_manifest(data: bytes) -> None:
    """A file under the id of its own header: whatever comes after that is looked at."""
    size = int.from_bytes(data[:4], "big")
    try:
        file_id = Manifest(data[4 : 4 + size]).file_id
    except InvalidManifestError:
        file_id = FILE_ID
    store = ManifestStore(place("manifests"))
    path = put(place("manifests") / "manifests" / file_id.hex(), data)
    try:
        loaded = store.load(file_id)
    finally:
        path.unlink()
    if loaded is not None:
        assert loaded.file_id == file_id
        if loaded.table_complete and not loaded.header.sealed:
            loaded.layout()


def lock(data: bytes) -> None:
    """The text of a lock that is held: it only tells people by whom."""
    path = put(place("lock") / "node.lock", data)
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with patch.multiple(lock_module, _LOOKS=1, _LOOK_INTERVAL=0.0):
            FileLock(path).acquire("fuzz")
    raise AssertionError("a lock that is held was taken")


def resume_file(data: bytes) -> None:
    """A resume file, listed and shown; with "m" in front, its description alone."""
    directory = place("resume")
    raw = metadata_snapshot(data[1:], 20) if data[:1] == b"m" else data[1:]
    path = put(resume_path(directory, FILE_ID), raw)
    (listed,) = list_all(directory, boot_id=BOOT)
    summary = peek(path, boot_id=BOOT)
    assert listed == summary
    for line in resume_view.detail_lines(summary):
        assert line.isprintable()
    resume_view.detail_record(summary)


def placing(data: bytes) -> None:
    """Where a forged description leads: to nowhere that was not asked for."""
    directory = place("placing")
    described, _, hint = data.partition(b"\n")
    stored = recover(metadata_snapshot(described, 20), BOOT).meta
    settings = Settings(directory, directory / "resume", directory)
    order = Order(stored.file_id)
    final = final_path(order, settings, stored, text_of(hint), sealed=False)
    asked = final.parent == directory
    assert asked or final == Path(os.path.abspath(stored.output)) or final == Path(stored.output)
    if asked:
        assert place_part(final, stored.file_id, stored) == part_path(final, stored.file_id)
        assert not os.listdir(directory)


def orders(data: bytes) -> None:
    """An order that can be read can be kept, and reads the same again."""
    kept = Orders(place("orders"))
    path = place("orders") / "orders" / f"{FILE_ID.hex()}.json"
    for raw in (data, checked(data)):
        put(path, raw)
        good, problems = kept.list()
        path.unlink()
        assert len(good) + len(problems) == 1
        assert all(problem.isprintable() for problem in problems)
        for order in good:
            # As JSON an order of the greatest length may be longer than it was.
            with contextlib.suppress(UsageError):
                kept.add(order)
                assert kept.list() == ([order], [])
            kept.remove(order.link.file_id)


def ban(data: bytes) -> None:
    """A ban as it is, and with its checksum made good: it counts, is over or is damaged."""
    body, _, _ = data.partition(b"\n")
    path = place("ban") / "banned" / f"{node_id_text(NODE_ID)}.ban"
    for raw in (data, body + b"\n" + blake3(body).hexdigest().encode() + b"\n"):
        put(path, raw)
        bans, problems = BanStore(place("ban"), lambda: NOW).load()
        assert len(bans) + len(problems) + (not path.exists()) == 1
        path.unlink(missing_ok=True)


def config(data: bytes) -> None:
    path = put(place("config") / "config.yaml", data)
    read = load_config(path, place("config") / "data")
    assert read.transfer.resume_dir.is_absolute()
    assert read.api.socket.is_absolute()
    for found in (read.transfer.resume_dir, read.storage.download_dir, read.api.socket):
        os.fsencode(found)


def part_names(data: bytes) -> None:
    """Any name that a file can have leaves room for what is put after it."""
    name = os.fsdecode(data.replace(b"/", b"").replace(b"\0", b"")[:MAX_NAME_BYTES])
    if name in ("", ".", ".."):
        return
    part = part_path(Path("/d") / name, FILE_ID).name
    assert part.endswith(f".{FILE_ID.hex()[:8]}.part")
    for made in (part, fitting_name(name, "_9999.tar")):
        assert len(os.fsencode(made)) <= MAX_NAME_BYTES


def _entry(key: bytes | None, facts: int) -> bytes:
    root = place("seed")
    entry = CatalogEntry(
        file_id=FILE_ID,
        path=Path("/somewhere/\udcffé"),
        name="film.mkv",
        size=7,
        facts=(Facts(1, 2, 7, 3, 4),) * facts,
        key=key,
        private=False,
        executable=False,
        added_at=1_700_000_000.5,
        trackers=(Tracker.parse("udp://192.0.2.1:6969"),) if key else (),
    )
    Catalog(root).add(entry, Manifest.build(HashAlgorithm.BLAKE3, Geometry(0, 16_384), b""))
    return (root / "catalog" / f"{FILE_ID.hex()}.json").read_bytes()


def _body(raw: bytes) -> bytes:
    """What a state file is about, without its checksum."""
    return raw[raw.index(b'"entry": ') + 9 : -2]


def _bare(raw: bytes) -> bytes:
    """A state file of before there were checksums."""
    return b'{"version": 1, ' + _body(raw)[1:]


def _manifest_file(entries: tuple[Entry, ...] | None, size: int) -> bytes:
    geometry = Geometry(size, 16_384)
    built = Manifest.build(
        HashAlgorithm.BLAKE3, geometry, bytes(32 * geometry.chunk_count), entries=entries
    )
    store = ManifestStore(place("seed"))
    store.save(built)
    return (place("seed") / "manifests" / built.file_id.hex()).read_bytes()


def _ban(at: float) -> bytes:
    BanStore(place("seed"), lambda: at).add(Ban(NODE_ID, "192.0.2.1"))
    return (place("seed") / "banned" / f"{node_id_text(NODE_ID)}.ban").read_bytes()


def _order() -> bytes:
    link = Link(FILE_ID, "film", (), KEY).text
    return (
        f'{{"link": "{link}", "output": "/tmp/film", "peers": ["192.0.2.1:7"],'
        f' "overwrite": true, "sha256": "{FILE_ID.hex()}"}}'
    ).encode()


_SMALL_CONFIG = b"""\
data_dir: ./data
node: {listen: "[::1]:0", allow: [], max_upload: 12M}
storage:
  reserve: 1.5G
discovery:
  peers: ["192.0.2.7:7000"]
transfer: {resume_save_interval: 30, resume_dir: ~/r}
"""
_JSON = (*JSON, b"1e999", b"NaN", b"-1", b'""')
_YAML = (
    *(b"node:", b"transfer:", b"api:", b"\n  ", b"\n- ", b"? ", b": "),
    *(b"&a ", b"*a", b"!!int ", b"! "),
    *(b"|\n", b">\n", b"<<: ", b"%YAML 1.1\n", b"---\n", b"...\n", b'"\\ud800"', b'"\\U00110000"'),
    *(b"0x", b"0b_", b"1:60", b".inf", b".nan", b"2001-99-99"),
    *(b"~", b"~x/", b"!<x>", b"%TAG ! x\n"),
)
_PATHS = (b"/", b"../", rb"\ud800", rb"\udcff", b"/proc/self/", b".00010203.part", b"/dev/null/")


def dht_nodes(data: bytes) -> None:
    for host, port in dht_state.decode(data):
        ipaddress.ip_address(host)
        assert 0 < port < 1 << 16


TARGETS = (
    Target(
        "dht_nodes",
        dht_nodes,
        lambda: {"two": b"d9:dht stated5:nodesl6:\x7f\0\0\1\1\2e6:nodes6l18:" + b"1" * 18 + b"eee"},
        (),
        (b"5:nodesl", b"6:nodes6l", b"d9:dht state", b"6:", b"18:", b"i1e", b"e", b"l", b"d"),
    ),
    Target(
        "catalog",
        catalog,
        lambda: {
            "file": _entry(None, 1),
            "body": _body(_entry(KEY, 2)),
            "bare": _bare(_entry(KEY, 3)),
        },
        (LocalDataError,),
        (
            *_JSON,
            *_PATHS,
            b'"facts":',
            b'"path":',
            b'"name":',
            b'"key":',
            b'"trackers":["udp://t:1"]',
        ),
    ),
    Target(
        "stored_manifest",
        stored_manifest,
        lambda: {
            "file": _manifest_file(None, 100_000),
            "folder": _manifest_file((Entry("a/b", EntryKind.FILE, 9),), 9),
        },
        (InvalidManifestError,),
        (b"FMH1\1", b"\0\0\0\0"),
    ),
    Target(
        "lock",
        lock,
        lambda: {"held": b'{"pid": 1, "command": "furymesh get", "since": 1700000000}', "new": b""},
        (AlreadyRunningError,),
        (*_JSON, b'"pid":', b'"since":', b'"command":'),
    ),
    Target(
        "resume_file",
        resume_file,
        lambda: {"whole": b"." + core.snapshot(), "described": b"m" + metadata_json()},
        (DamagedResumeDataError,),
        (*_JSON, *_PATHS, b"FMRESUM1"),
    ),
    Target(
        "placing",
        placing,
        lambda: {"film": metadata_json() + b"\na hint.mkv", "young": metadata_json(core.young())},
        (DamagedResumeDataError, EnvironmentFault),
        (*_JSON, *_PATHS, b"\n", b'"output":', b'"part":', b'"name":""'),
    ),
    Target(
        "orders",
        orders,
        lambda: {"order": _order(), "checked": checked(_order())},
        (),
        (*_JSON, *_PATHS, b'"link":', b'"output":'),
    ),
    Target(
        "ban",
        ban,
        lambda: {"fresh": _ban(NOW), "over": _ban(NOW - 10**6)},
        (),
        (*_JSON, b'"banned_at":', b'"machine":', b'"node_id":', b"1" + b"0" * 400),
    ),
    Target(
        "config",
        config,
        lambda: {"small": _SMALL_CONFIG},
        (ConfigError,),
        _YAML,
    ),
    Target(
        "part_names",
        part_names,
        lambda: {"film": b"film.mkv", "long": "é".encode() * 127, "odd": b"a\xff" * 120},
        (),
        (b".", "é".encode() * 100, b"\xff", b".part", b"_1"),
    ),
)
