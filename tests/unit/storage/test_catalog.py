import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.errors import EnvironmentFault, LocalDataError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, NodeId
from furymesh.core.link import Link, Mirror, Tracker
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import Sealer
from furymesh.storage import checked_json
from furymesh.storage.catalog import Catalog, Options
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.scan import Facts, Scan, scan

CHUNK = 16 * 1024
KEY = bytes(range(32))


def manifest_of(text: bytes, sealer: Sealer | None = None) -> Manifest:
    algorithm = HashAlgorithm.BLAKE3
    return Manifest.build(algorithm, Geometry(100, CHUNK), algorithm.digest(text), sealer=sealer)


def entry_of(manifest: Manifest, **changes: object) -> CatalogEntry:
    entry = CatalogEntry(
        file_id=manifest.file_id,
        path=Path("/somewhere/\udcffé"),
        name="é.bin",
        size=100,
        facts=(Facts(1, 2, 100, 10**18 + 1, 10**18 + 2),),
        key=None,
        private=False,
        executable=True,
        added_at=1234.5,
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def test_add_get_list_remove(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "data")
    first, second = manifest_of(b"1"), manifest_of(b"2", Sealer(KEY))
    one, two = entry_of(first), entry_of(second, key=KEY, private=True)
    assert catalog.list() == ([], [])
    assert catalog.get(one.file_id) is None
    catalog.add(one, first)
    catalog.add(two, second)
    assert catalog.get(one.file_id) == one
    assert catalog.list().entries == sorted([one, two], key=lambda entry: entry.file_id)
    assert catalog.ids() == tuple(sorted([one.file_id, two.file_id]))
    stored = catalog.manifests.load(two.file_id)
    assert stored is not None
    assert stored.complete
    renamed = replace(one, name="other")
    catalog.add(renamed, first)
    assert catalog.get(one.file_id) == renamed
    assert catalog.remove(one.file_id)
    assert not catalog.remove(one.file_id)
    assert catalog.manifests.load(one.file_id) is None
    assert catalog.list().entries == [two]


def test_what_a_link_names_is_kept(tmp_path: Path) -> None:
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1")
    trackers = tuple(map(Tracker.parse, ["http://t.example/key/announce", "udp://192.0.2.1:6969"]))
    nodes = (NodeId(b"n" * 32), NodeId(b"m" * 32))
    entry = entry_of(manifest, trackers=trackers, nodes=nodes, private=True)
    catalog.add(entry, manifest)
    kept = catalog.get(entry.file_id)
    assert kept == entry
    link = Link(entry.file_id, entry.name, trackers=trackers, nodes=nodes, private=True)
    assert kept.link == link


def test_mirrors_are_kept_and_may_be_all_there_is(tmp_path: Path) -> None:
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1")
    mirrors = tuple(map(Mirror.parse, ["https://m.example/f?key=1", "sftp://ann@h/f"]))
    for entry in (
        entry_of(manifest, mirrors=mirrors),
        entry_of(manifest, mirrors=mirrors, path=None, facts=()),
    ):
        catalog.add(entry, manifest)
        assert catalog.get(entry.file_id) == entry
    assert entry.place == "https://m.example/f"


@pytest.mark.parametrize(
    "changes",
    [{"path": None}, {"path": None, "mirrors": []}, {"mirrors": ["ftp://x/"]}, {"mirrors": "x"},
     {"mirrors": ["https://m/"] * 9}, {"path": "relative", "mirrors": ["https://m/"]},
     {"path": "/a\0b"}, {"name": "../x"}],
)  # fmt: skip
def test_an_entry_with_bad_places_is_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1")
    entry = entry_of(manifest)
    catalog.add(entry, manifest)
    path = tmp_path / "data" / "catalog" / f"{entry.file_id.hex()}.json"
    fields, _ = checked_json.decode(path.read_bytes())
    path.write_bytes(checked_json.encode({**fields, **changes}))
    with pytest.raises(LocalDataError, match="is damaged"):
        catalog.get(entry.file_id)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *[("trackers", bad) for bad in ("udp://t:1", [7], ["udp://t"], ["udp://t:1"] * 9, None)],
        *[("nodes", bad) for bad in ("a" * 52, [7], ["a"], ["a" * 52] * 65, None)],
    ],
)
def test_an_entry_that_names_nonsense_is_damaged(tmp_path: Path, name: str, values: object) -> None:
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1")
    entry = entry_of(manifest)
    catalog.add(entry, manifest)
    path = tmp_path / "data" / "catalog" / f"{entry.file_id.hex()}.json"
    fields, _ = checked_json.decode(path.read_bytes())
    assert name not in fields
    path.write_bytes(checked_json.encode({**fields, name: values}))
    with pytest.raises(LocalDataError):
        catalog.get(entry.file_id)


def test_files_are_private_and_keys_not_shown(tmp_path: Path) -> None:
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1", Sealer(KEY))
    entry = entry_of(manifest, key=KEY)
    catalog.add(entry, manifest)
    for path in (tmp_path / "data").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert repr(KEY) not in repr(entry)
    assert entry.sealer is not None
    assert entry.sealer.check == Sealer(KEY).check


def test_every_damage_is_named_and_none_is_fatal(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    good, bad = manifest_of(b"1"), manifest_of(b"2", Sealer(KEY))
    catalog.add(entry_of(good), good)
    catalog.add(entry_of(bad, key=KEY), bad)
    path = tmp_path / "catalog" / f"{bad.file_id.hex()}.json"
    raw = path.read_bytes()
    fields = {"version": 1, **json.loads(raw)["entry"]}
    damages = [raw[:length] for length in range(0, len(raw) - 2, 5)]
    damages += [b"\xff" + raw, b"[" * 100_000, b"[]", b"null", b"{}"]
    odd: list[Any] = [[], {}, "x", -1.5, [[1]], [1], [["1"] * 5]]
    changes: list[tuple[str, Any]] = [(name, value) for name in fields for value in odd]
    # Facts that do not fit the files are noticed when the share is opened.
    changes = [change for change in changes if change not in [("name", "x"), ("facts", [])]]
    changes += [
        ("path", "relative"),
        ("path", "/a\0b"),
        ("path", "/a\ud800b"),
        ("key", "AAAA"),
        ("name", "../x"),
        ("name", "\ud800"),
        ("size", -1),
        ("added_at", float("inf")),
        ("added_at", float("nan")),
        ("added_at", 1e12),
    ]
    damages += [json.dumps({**fields, name: value}).encode() for name, value in changes]
    for name in fields:
        damages.append(json.dumps({k: v for k, v in fields.items() if k != name}).encode())
    # What a checksum vouches for may be odd all the same.
    damages += [
        checked_json.encode({**fields, name: value}) for name, value in changes if name != "version"
    ]
    for damage in damages:
        path.write_bytes(damage)
        entries, damaged = catalog.list()
        assert [entry.file_id for entry in entries] == [good.file_id], damage[:200]
        assert [each.path for each in damaged] == [path]
        assert str(path) in damaged[0].reason
        assert "share the path again" in damaged[0].reason
        assert damaged[0].reason.isprintable()
        with pytest.raises(LocalDataError):
            catalog.get(bad.file_id)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/nowhere", path)])
def test_what_the_disk_refuses_to_read_is_named_and_the_rest_is_listed(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    catalog = Catalog(tmp_path)
    good, bad = manifest_of(b"1"), manifest_of(b"2")
    catalog.add(entry_of(good), good)
    path = tmp_path / "catalog" / f"{bad.file_id.hex()}.json"
    make(path)
    entries, damaged = catalog.list()
    assert entries == [entry_of(good)]
    assert [each.path for each in damaged] == [path]
    assert str(path) in damaged[0].reason
    with pytest.raises(EnvironmentFault):
        catalog.list(certain=True)


def test_no_changed_bit_is_believed(tmp_path: Path) -> None:
    """Not even one that still makes sense, like another digit of a size."""
    catalog, manifest = Catalog(tmp_path), manifest_of(b"1")
    catalog.add(entry_of(manifest), manifest)
    path = tmp_path / "catalog" / f"{manifest.file_id.hex()}.json"
    raw = path.read_bytes()
    for bit in range(0, len(raw) * 8, 7):  # all of them take a while
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(LocalDataError, match="share the path again"):
            catalog.get(manifest.file_id)


def test_entries_from_before_the_checksum_are_read(tmp_path: Path) -> None:
    catalog, manifest = Catalog(tmp_path), manifest_of(b"1")
    catalog.add(entry_of(manifest), manifest)
    path = tmp_path / "catalog" / f"{manifest.file_id.hex()}.json"
    fields = json.loads(path.read_bytes())["entry"]
    path.write_text(json.dumps({"version": 1, **fields}))
    assert catalog.get(manifest.file_id) == entry_of(manifest)


def test_an_entry_under_another_id_is_not_believed(tmp_path: Path) -> None:
    catalog, manifest = Catalog(tmp_path), manifest_of(b"1")
    catalog.add(entry_of(manifest), manifest)
    other = FileId(bytes(32))
    path = tmp_path / "catalog" / f"{manifest.file_id.hex()}.json"
    path.rename(path.with_name(f"{other.hex()}.json"))
    with pytest.raises(LocalDataError, match="another share"):
        catalog.get(other)


def test_unreadable_places(tmp_path: Path) -> None:
    (tmp_path / "catalog").touch()
    with pytest.raises(EnvironmentFault):
        Catalog(tmp_path).list()
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1")
    catalog.add(entry_of(manifest), manifest)
    path = tmp_path / "data" / "catalog" / f"{manifest.file_id.hex()}.json"
    path.rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(EnvironmentFault):
        catalog.get(manifest.file_id)
    (path.parent / "notes.txt").touch()
    (path.parent / "short.json").touch()
    assert catalog.ids() == (manifest.file_id,)


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Catalog, Scan, Options]:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    found = scan(path)
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1")
    catalog.add(entry_of(manifest, facts=found.facts, path=path), manifest)
    return catalog, found, Options.of(manifest.header)


def test_finds_what_is_unchanged(shared: tuple[Catalog, Scan, Options]) -> None:
    catalog, found, options = shared
    hit = catalog.find_unchanged(found, options)
    assert hit is not None
    assert hit[0].facts == found.facts
    assert hit[1].complete
    moved = replace(found, path=found.path.with_name("other"))
    assert catalog.find_unchanged(moved, options) is not None


@pytest.mark.parametrize("field", Facts._fields)
def test_one_other_fact_is_another_file(shared: tuple[Catalog, Scan, Options], field: str) -> None:
    catalog, found, options = shared
    facts = found.facts[0]._replace(**{field: getattr(found.facts[0], field) + 1})
    assert catalog.find_unchanged(replace(found, facts=(facts,)), options) is None


def test_other_options_are_another_share(shared: tuple[Catalog, Scan, Options]) -> None:
    catalog, found, options = shared
    for other in (
        options._replace(algorithm=HashAlgorithm.SHA256),
        options._replace(chunk_size=2 * CHUNK),
        options._replace(sealed=True),
    ):
        assert catalog.find_unchanged(found, other) is None


def test_a_folder_of_one_file_is_not_that_file(shared: tuple[Catalog, Scan, Options]) -> None:
    catalog, found, options = shared
    assert catalog.find_unchanged(replace(found, entries=found.layout.files), options) is None


def test_a_lost_or_partial_manifest_is_no_hit(shared: tuple[Catalog, Scan, Options]) -> None:
    catalog, found, options = shared
    (file_id,) = catalog.ids()
    whole = catalog.manifests.load(file_id)
    assert whole is not None
    catalog.manifests.save(Manifest(whole.header_bytes))
    assert catalog.find_unchanged(found, options) is None
    catalog.manifests.delete(file_id)
    assert catalog.find_unchanged(found, options) is None


def test_a_key_of_another_share_is_no_hit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(72))
    found = scan(path)
    catalog, manifest = Catalog(tmp_path / "data"), manifest_of(b"1", Sealer(KEY))
    catalog.add(entry_of(manifest, facts=found.facts, key=bytes(32)), manifest)
    assert catalog.find_unchanged(found, Options.of(manifest.header)) is None
    catalog.add(entry_of(manifest, facts=found.facts, key=KEY), manifest)
    assert catalog.find_unchanged(found, Options.of(manifest.header)) is not None


def test_what_was_removed_stays_removed_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the entry might come back when its manifest does not."""
    catalog, manifest = Catalog(tmp_path), manifest_of(b"1")
    catalog.add(entry_of(manifest), manifest)
    directory = (tmp_path / "catalog").stat().st_ino
    kept: dict[int, bool] = {}

    def fsync(fd: int) -> None:
        kept[os.fstat(fd).st_ino] = catalog.manifests.load(manifest.file_id) is not None

    monkeypatch.setattr(os, "fsync", fsync)
    assert catalog.remove(manifest.file_id)
    assert kept[directory], "the manifest was gone before the entry was"
