"""One bit of a state file is flipped, or the file ends too early: noticed, or harmless.

Whatever the damage, the only errors are those that the product states, what was
downloaded before is not fetched again, and the download ends with the very file.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.bitfield import chunks_of, mask_of
from furymesh.core.errors import AlreadyRunningError, FuryMeshError, LocalDataError
from furymesh.core.link import Address, Link
from furymesh.net.identity import load_or_create
from furymesh.node import face
from furymesh.node.config import load_config
from furymesh.node.orders import DetachedOrder, Orders
from furymesh.node.runtime import download_settings, open_runtime
from furymesh.storage.catalog import Catalog
from furymesh.storage.lock import DownloadLock
from furymesh.storage.manifests import ManifestStore
from furymesh.storage.order import Order
from furymesh.storage.resume import ResumeData, resume_path
from furymesh.storage.sharing import open_share
from furymesh.storage.workspace import Workspace
from tests.e2e.mesh import Mesh, write_blob
from tests.e2e.parts import keep_part, right_chunks
from tests.reliability import Record

pytestmark = pytest.mark.promise(5)

SEED = 5
CHUNK = 16 * 1024
CHUNKS = 12
KEPT = mask_of(range(0, CHUNKS, 2))
JOURNALED = mask_of(range(0, CHUNKS, 4))  # of them, the rest being in the snapshot
SIZE = CHUNK * CHUNKS - 100
SHORT = 60  # damages of each file
SHORT_DOWNLOADS = 12  # of them followed by a download to its end
CONFIG = """\
# how the downloader of these tests is set up
discovery: {lan: {enabled: false}, dht: {enabled: false}}
storage: {reserve: 1MiB, download_dir: files}
transfer:
  resume_enabled: true
  resume_dir: user/resume
  resume_save_interval: 30
  timeout: 10
"""

Damage = tuple[str, bytes]


def damages(raw: bytes) -> Iterator[Damage]:
    """Every flipped bit and every length, with what to call it."""
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(changed)
    for length in range(len(raw)):
        yield f"cut to {length} bytes", raw[:length]


@dataclass(frozen=True, slots=True)
class Victim:
    """A share, and an unfinished download of it whose state is to be damaged."""

    mesh: Mesh
    link: Link
    source: Path
    seed: Path
    home: Path

    @property
    def final(self) -> Path:
        return self.mesh.files(self.home) / "film.bin"

    @property
    def resume(self) -> Path:
        return resume_path(self.home / "resume", self.link.file_id)

    @property
    def manifest(self) -> Path:
        return self.home / "manifests" / self.link.file_id.hex()

    def save(self) -> None:
        for path in (self.home, self.final.parent):
            shutil.copytree(path, _saved(path))

    def restore(self) -> None:
        for path in (self.home, self.final.parent):
            shutil.rmtree(path)
            shutil.copytree(_saved(path), path)


def _saved(path: Path) -> Path:
    return path.with_name(f"{path.name}.saved")


@pytest.fixture
def victim(mesh: Mesh) -> Victim:
    source = write_blob(mesh.root / "film.bin", SIZE, SEED)
    seed, home = mesh.home("seed"), mesh.home("user")
    shared = mesh.share(seed, source, chunk_size=CHUNK)
    made = Victim(mesh, shared.link, source, seed, home)
    keep_part(
        home,
        shared.file_id,
        manifests=seed,
        source=source,
        output=made.final,
        chunks=KEPT,
    )
    with ResumeData.load(home / "resume", shared.file_id) as resume:
        resume.doubt(JOURNALED)  # so that a journal follows the snapshot
        for chunk in chunks_of(JOURNALED):
            resume.add(chunk)
    load_or_create(home)
    mesh.config_of(home).write_text(CONFIG)
    made.save()
    return made


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.slow)])
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "long")


def some(raw: bytes, long: bool) -> list[Damage]:
    every = list(damages(raw))
    return every if long else Random(SEED).sample(every, min(SHORT, len(every)))


def told(record: Record, name: str, count: int, downloads: int = 0) -> None:
    record("cases", count)
    ended = f"damaged {name}: {downloads:,} downloads ended equal"
    record("result", ended if downloads else "all noticed or harmless")


# --- what a download stands on --------------------------------------------------------


def take_up(victim: Victim, what: str) -> None:
    """Open the unfinished download: nothing is believed that is not there."""
    config = load_config(victim.mesh.config_of(victim.home), victim.home)
    workspace = Workspace(
        Order(victim.link.file_id, output=victim.final), download_settings(config)
    )
    workspace.lock()
    try:
        workspace.recall()
        manifest = ManifestStore(victim.seed).load(victim.link.file_id)
        assert manifest is not None
        if workspace.manifest is not None:
            assert workspace.manifest.header_bytes == manifest.header_bytes, what
        workspace.remember_header(manifest)
        good, doubtful = workspace.open("a hint", ())
        right = right_chunks(manifest, good | doubtful, workspace.part.read_chunk_into)
        assert good & ~right == 0, f"{what}: a chunk is believed in that is not there"
        assert KEPT & ~right == 0, f"{what}: a chunk is forgotten that was there"
    finally:
        workspace.close()


async def finish(
    victim: Victim, path: Path, cases: list[Damage], *refusals: type[FuryMeshError]
) -> int:
    """Download to the end after each damage to `path`; how many did, the others being refused."""
    seed_config = load_config(victim.mesh.config_of(victim.seed), victim.seed)
    ended = 0
    async with open_runtime(seed_config, listen_on=Address("127.0.0.1", 0)) as runtime:
        await runtime.load_catalog()
        peers = [Address.parse(runtime.addresses[0])]
        for what, raw in cases:
            victim.restore()
            config_path = victim.mesh.config_of(victim.home)
            whole = config_path.read_bytes()
            path.write_bytes(raw)
            try:
                with trio.fail_after(30):
                    config = load_config(config_path, victim.home)
                    result = await face.get(
                        victim.link, config, output=victim.final, peers=peers, timeout=5
                    )
            except refusals:
                continue
            except BaseException as error:
                error.add_note(f"{path.name}, {what}; seed {SEED}")
                raise
            finally:
                config_path.write_bytes(whole)
            ended += 1
            assert result.path == victim.final, what
            assert result.path.read_bytes() == victim.source.read_bytes(), what
            if path != config_path:
                assert result.bytes_fetched <= SIZE - KEPT.bit_count() * CHUNK, what
    return ended


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["resume", "manifest"])
def test_damage_costs_hashing_at_most(
    victim: Victim, name: str, long: bool, record_property: Record
) -> None:
    path = victim.resume if name == "resume" else victim.manifest
    chosen = some(path.read_bytes(), long)
    for what, raw in chosen:
        victim.restore()
        path.write_bytes(raw)
        take_up(victim, what)
    downloads = chosen if long else chosen[:SHORT_DOWNLOADS]
    ended = trio.run(finish, victim, path, downloads)
    assert ended == len(downloads)
    told(record_property, name, len(chosen), ended)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["config", "identity"])
def test_damage_is_refused_or_the_download_ends_equal(
    victim: Victim, name: str, long: bool, record_property: Record
) -> None:
    home = victim.home
    path = victim.mesh.config_of(home) if name == "config" else home / "identity.key"
    chosen = some(path.read_bytes(), long)
    downloads = chosen if long else chosen[:SHORT_DOWNLOADS]
    # A digit or unit of a setting may become another one that nobody can satisfy.
    refusal = FuryMeshError if name == "config" else LocalDataError
    ended = trio.run(finish, victim, path, downloads, refusal)
    assert (ended > 0) == (name == "config"), "a damaged identity was taken for another"
    told(record_property, name, len(downloads), ended)


# --- what is noticed by itself --------------------------------------------------------


def test_damaged_identity_is_never_another(
    victim: Victim, long: bool, record_property: Record
) -> None:
    path = victim.home / "identity.key"
    chosen = some(path.read_bytes(), long)
    for _, raw in chosen:
        path.write_bytes(raw)
        with pytest.raises(LocalDataError, match="backup"):
            load_or_create(victim.home)
        assert path.read_bytes() == raw, "what could be mended by hand is gone"
    told(record_property, "identity key", len(chosen))


def test_damaged_catalog_entry_is_named_and_its_share_not_served(
    victim: Victim, long: bool, record_property: Record
) -> None:
    catalog = Catalog(victim.seed)
    path = victim.seed / "catalog" / f"{victim.link.file_id.hex()}.json"
    chosen = some(path.read_bytes(), long)
    for what, raw in chosen:
        path.write_bytes(raw)
        entries, (damaged,) = catalog.list()
        assert entries == [], what
        assert damaged.path == path
    told(record_property, "catalog entry", len(chosen))


def test_damaged_manifest_of_a_share_is_noticed(
    victim: Victim, long: bool, record_property: Record
) -> None:
    catalog = Catalog(victim.seed)
    (entry,) = catalog.list().entries
    path = victim.seed / "manifests" / victim.link.file_id.hex()
    chosen = some(path.read_bytes(), long)
    for _, raw in chosen:
        path.write_bytes(raw)
        with pytest.raises(LocalDataError, match="share it again"):
            open_share(catalog, entry)
    told(record_property, "manifest of a share", len(chosen))


def test_damaged_order_is_named_and_not_obeyed(
    victim: Victim, long: bool, record_property: Record
) -> None:
    orders = Orders(victim.home)
    orders.add(DetachedOrder(victim.link, victim.final, (Address("192.0.2.1", 1),), True))
    (path,) = (victim.home / "orders").iterdir()
    chosen = some(path.read_bytes(), long)
    for what, raw in chosen:
        path.write_bytes(raw)
        good, (problem,) = orders.list()
        assert good == [], what
        assert str(path) in problem
    told(record_property, "order", len(chosen))


@pytest.mark.timeout(900)
def test_damaged_lock_file_neither_opens_nor_blocks(
    victim: Victim, long: bool, record_property: Record
) -> None:
    """The lock is the kernel's; its text only tells people who has it."""
    directory = victim.home / "resume"
    with DownloadLock(directory, victim.link.file_id) as holder:
        holder.acquire("furymesh get")
        text = holder.path.read_bytes()
        chosen = some(text, long)
        for what, raw in chosen if long else chosen[:4]:  # an unreadable one takes a while
            _rewrite(holder.path, raw)
            with pytest.raises(AlreadyRunningError) as refused:
                DownloadLock(directory, victim.link.file_id).acquire("furymesh resume")
            assert str(refused.value).isprintable(), what
    for _, raw in chosen:
        holder.path.write_bytes(raw)
        with DownloadLock(directory, victim.link.file_id) as lock:
            lock.acquire("furymesh get")
    told(record_property, "lock file", len(chosen))


def _rewrite(path: Path, raw: bytes) -> None:
    """Other text in the same file: a lock belongs to an inode."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(raw)


# --- as people meet it ----------------------------------------------------------------


def test_commands_state_the_damage_in_one_line(victim: Victim) -> None:
    mesh, file_id = victim.mesh, victim.link.file_id.hex()
    rng = Random(SEED)
    for path in (victim.resume, victim.manifest, mesh.config_of(victim.home)):
        whole = path.read_bytes()
        for what, raw in rng.sample(list(damages(whole)), 8):
            path.write_bytes(raw)
            for command in (["list-resume"], ["show-resume", "--file-id", file_id], ["id"]):
                done = mesh.call(victim.home, *command)
                assert done.code in (0, 1, 2), what
                assert "Traceback" not in done.err, what
                assert "internal error" not in done.err, what
                assert not done.code or len(done.err.splitlines()) == 1, (what, done.err)
        path.write_bytes(whole)
