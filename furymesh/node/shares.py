"""What this node shares: adding to it, listing it, taking from it.

Every function tells a node that runs in the same data directory, which then
serves what is shared, or stops serving it, at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from furymesh.core.errors import EnvironmentFault, FuryMeshError, NotFoundError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, parse_node_id, resolve_prefix
from furymesh.core.link import Address, Link, Mirror, Tracker
from furymesh.core.protection import Protection
from furymesh.core.sealing import KEY_SIZE
from furymesh.net.addresses import is_loopback
from furymesh.node.config import Config, load_config
from furymesh.node.control_client import call
from furymesh.node.passphrase import opened_protection
from furymesh.node.surveying import mirror_of, survey
from furymesh.node.verify import ChunkProgress
from furymesh.storage.catalog import Catalog
from furymesh.storage.catalog_entry import CatalogEntry
from furymesh.storage.files import (
    atomic_write,
    check_replaceable,
    make_private_directory,
    translating,
)
from furymesh.storage.manifests import encode_manifest
from furymesh.storage.sharing import Share as Made
from furymesh.storage.sharing import create_share, record_remote


@dataclass(frozen=True, slots=True)
class Shared:
    """A share that was just made; `served` tells that a running node has it now.

    Without a `path` its content is at the mirrors in its link alone.
    """

    file_id: FileId
    link: Link
    name: str
    size: int
    chunks: int
    chunk_size: int
    hash: str
    path: Path | None
    encrypted: bool
    cached: bool
    served: bool
    skipped: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where the content is, for people."""
        return _place(self.path, self.link)


@dataclass(frozen=True, slots=True)
class SharedItem:
    """One line of what this node shares; a `locked` one lacks the sealed key in its link."""

    file_id: FileId
    name: str
    size: int
    chunks: int
    path: Path | None
    encrypted: bool
    private: bool
    link: Link
    locked: bool = False

    @property
    def place(self) -> str:
        """Where the content is, for people."""
        return _place(self.path, self.link)


async def share(
    path: Path | str,
    config: Config | None = None,
    *,
    name: str | None = None,
    algorithm: str | None = None,
    chunk_size: int | None = None,
    encrypt: bool | None = None,
    private: bool = False,
    trackers: Sequence[Tracker] = (),
    mirrors: Sequence[Mirror] = (),
    manifest_out: Path | None = None,
    progress: ChunkProgress | None = None,
    passphrase: str | None = None,
) -> Shared:
    """Hash a file or folder, put it into the catalog and return its link.

    A `path` may be the URL of a file, https, http or sftp, or of a folder on an SFTP
    server: it is read once and not kept, and its server is the first mirror in the link.

    Hashing is skipped if the content is unchanged since it was last shared.
    `progress(done, total)` is called from a worker thread with bytes. A node
    that runs in the same data directory serves the share at once. `trackers` go
    into the link: there it is announced, even if it is private. So do `mirrors`,
    URLs of the file, or of the folder with all the files. `manifest_out` gets the
    manifest, to be put beside them, under the mirror's name and `.furymesh`.

    Raises NotFoundError, UsageError, SourceChangedError, EnvironmentFault; for an
    encrypted share, whose key is kept here, PassphraseNeededError, PassphraseError;
    for a URL PeerError, UnavailableError.
    """
    config = config or load_config(None, None)
    make_private_directory(config.data_dir)
    sealed = config.encryption.encrypt_by_default if encrypt is None else encrypt
    hashing = HashAlgorithm.from_label(algorithm or config.encryption.default_hash)
    key = os.urandom(KEY_SIZE) if sealed else None
    tell = progress or (lambda done, total: None)
    stop = threading.Event()
    remote = mirror_of(path)
    make: Callable[..., Made]
    if remote is None:
        make = partial(
            create_share,
            Path(path),
            algorithm=hashing,
            progress=_adding_up(tell, _size_of(Path(path))),
            cancelled=stop.is_set,
            chunk_size=chunk_size,
            sealed_key=key,
            name=name,
        )
    else:
        found = await survey(remote, hashing, chunk_size, key, tell)
        mirrors = tuple(dict.fromkeys((remote, *mirrors)))
        name = name or remote.name
        make = partial(
            record_remote,
            found.manifest,
            name=name,
            size=found.size,
            key=key,
            skipped=found.skipped,
        )

    def make_in(catalog: Catalog) -> Shared:
        made = make(
            catalog=catalog, private=private, trackers=tuple(trackers), mirrors=tuple(mirrors)
        )
        if manifest_out is not None:
            with translating(manifest_out, "write"):
                check_replaceable(manifest_out)
            atomic_write(manifest_out.absolute(), encode_manifest(made.manifest), 0o644)
        return _told(made)

    def work() -> Shared:
        if not sealed:
            return make_in(Catalog(config.data_dir))
        with opened_protection(config, passphrase) as protection:
            return make_in(Catalog(config.data_dir, protection))

    try:
        shared = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    finally:
        stop.set()
    status = await _tell_node(config)
    if status is None:
        return shared
    peers = tuple(_reachable(status, private))
    return replace(shared, link=replace(shared.link, peers=peers), served=True)


def shares(config: Config | None = None) -> list[SharedItem]:
    """What this node shares, by id; the links lack the keys that a passphrase seals."""
    return _listed(config or load_config(None, None), None)


def shares_with_keys(
    config: Config | None = None, passphrase: str | None = None
) -> list[SharedItem]:
    """`shares` with every key in the links; raises as `opened_protection` does."""
    config = config or load_config(None, None)
    with opened_protection(config, passphrase) as protection:
        return _listed(config, protection)


async def unshare(text: str, config: Config | None = None) -> SharedItem:
    """Stop sharing the one whose id starts with `text`; the files stay.

    Raises UsageError, AmbiguousIdError, NotFoundError.
    """
    config = config or load_config(None, None)
    catalog = Catalog(config.data_dir)
    file_id = resolve_prefix(text, catalog.ids(), what="share", listed="furymesh list")
    entry = catalog.get(file_id)
    if entry is None:
        raise NotFoundError(f"the catalog entry of {text} is damaged; remove it by hand")
    item = _item(catalog, entry)
    catalog.remove(file_id)
    await _tell_node(config)
    return item


# --- helpers ------------------------------------------------------------------------


def _place(path: Path | None, link: Link) -> str:
    return str(path) if path else link.mirrors[0].place


def _adding_up(tell: ChunkProgress, total: int) -> Callable[[int], None]:
    """Takes how many bytes more were hashed, and tells how many are."""
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        tell(min(done, total), total)

    return report


def _told(made: Made) -> Shared:
    geometry = made.manifest.header.geometry
    return Shared(
        made.file_id,
        made.link(),
        made.name,
        made.size,
        geometry.chunk_count,
        geometry.chunk_size,
        made.manifest.header.algorithm.label,
        made.path,
        made.key is not None,
        made.cached,
        served=False,
        skipped=made.skipped,
    )


def _listed(config: Config, protection: Protection | None) -> list[SharedItem]:
    catalog = Catalog(config.data_dir, protection)
    return [_item(catalog, entry) for entry in catalog.list().entries]


def _item(catalog: Catalog, entry: CatalogEntry) -> SharedItem:
    manifest = None
    with suppress(EnvironmentFault):  # the others are listed all the same
        manifest = catalog.manifests.load(entry.file_id)
    geometry = manifest.header.geometry if manifest else Geometry(0, 1 << 18)
    sealed = manifest.header.sealed if manifest else entry.key is not None
    return SharedItem(
        entry.file_id,
        entry.name,
        entry.size,
        geometry.chunk_count,
        entry.path,
        sealed,
        entry.private,
        entry.link,
        entry.locked,
    )


def _size_of(path: Path) -> int:
    """Bytes to hash, for a progress bar; 0 if that cannot be told."""
    try:
        if path.is_dir():
            return sum(
                os.lstat(os.path.join(root, file)).st_size
                for root, _, files in os.walk(path)
                for file in files
            )
        return path.stat().st_size
    except OSError:
        return 0


async def _tell_node(config: Config) -> dict[str, object] | None:
    """Let a running node read its catalog again; its status, or None if none runs."""
    try:
        await call(config.api.socket, "POST", "/v1/catalog/reload")
        return await call(config.api.socket, "GET", "/v1/status")
    except FuryMeshError:
        return None


def _reachable(status: dict[str, object], private: bool) -> list[Address]:
    """Addresses of the running node that are worth putting into a link."""
    found: list[Address] = []
    addresses = status.get("addresses")
    node_id = parse_node_id(str(status.get("node_id")))
    for text in addresses if isinstance(addresses, list) and not private else ():
        address = Address.parse(str(text))
        if not is_loopback(address.host):
            found.append(Address(address.host, address.port, node_id))
    return found
