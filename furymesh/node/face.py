"""The library's front door: what ``import furymesh`` offers and the commands use.

Every function raises only the errors of ``furymesh.core.errors``. Sizes are
bytes, rates bytes per second, times seconds. The functions that move data are
async and run under trio.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from furymesh.core.errors import FuryMeshError, NotFoundError, UnavailableError
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, NodeId, parse_node_id, resolve_prefix
from furymesh.core.link import Address, Link
from furymesh.core.sealing import KEY_SIZE
from furymesh.discovery.book import Source
from furymesh.net.identity import load_or_create
from furymesh.node.config import Config, load_config
from furymesh.node.control_client import call
from furymesh.node.orders import DetachedOrder, checked_sha256
from furymesh.node.resumes import find_resume, show_resume
from furymesh.node.runtime import ANY_ADDRESS, limit, open_runtime
from furymesh.node.verify import ChunkProgress
from furymesh.node.verify import Verified as Verified
from furymesh.node.verify import verify as verify
from furymesh.storage.catalog import Catalog, CatalogEntry
from furymesh.storage.files import make_private_directory
from furymesh.storage.order import Order
from furymesh.storage.sharing import create_share
from furymesh.swarm.download import Terms
from furymesh.swarm.events import Event, Note, Result


@dataclass(frozen=True, slots=True)
class Shared:
    """A share that was just made; `served` tells that a running node has it now."""

    file_id: FileId
    link: Link
    name: str
    size: int
    chunks: int
    chunk_size: int
    hash: str
    path: Path
    encrypted: bool
    cached: bool
    served: bool
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedItem:
    """One line of what this node shares."""

    file_id: FileId
    name: str
    size: int
    chunks: int
    path: Path
    encrypted: bool
    private: bool
    link: Link


async def share(
    path: Path | str,
    config: Config | None = None,
    *,
    name: str | None = None,
    algorithm: str | None = None,
    chunk_size: int | None = None,
    encrypt: bool | None = None,
    private: bool = False,
    progress: ChunkProgress | None = None,
) -> Shared:
    """Hash a file or folder, put it into the catalog and return its link.

    Hashing is skipped if the content is unchanged since it was last shared.
    `progress(done, total)` is called from a worker thread with bytes. A node
    that runs in the same data directory serves the share at once.

    Raises NotFoundError, UsageError, SourceChangedError, EnvironmentFault.
    """
    config = config or load_config(None, None)
    make_private_directory(config.data_dir)
    catalog = Catalog(config.data_dir)
    sealed = config.encryption.encrypt_by_default if encrypt is None else encrypt
    stop = threading.Event()
    total = _size_of(Path(path))
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(min(done, total), total)

    def make() -> Shared:
        made = create_share(
            Path(path),
            catalog=catalog,
            algorithm=HashAlgorithm.from_label(algorithm or config.encryption.default_hash),
            progress=report,
            cancelled=stop.is_set,
            chunk_size=chunk_size,
            sealed_key=os.urandom(KEY_SIZE) if sealed else None,
            name=name,
            private=private,
        )
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

    try:
        shared = await trio.to_thread.run_sync(make, abandon_on_cancel=True)
    finally:
        stop.set()
    status = await _tell_node(config)
    if status is None:
        return shared
    peers = tuple(_reachable(status, private))
    link = Link(shared.file_id, shared.link.name, peers, shared.link.key)
    return _served(shared, link)


def shares(config: Config | None = None) -> list[SharedItem]:
    """What this node shares, oldest first."""
    catalog = Catalog((config or load_config(None, None)).data_dir)
    return [_item(catalog, entry) for entry in catalog.list().entries]


async def unshare(text: str, config: Config | None = None) -> SharedItem:
    """Stop sharing the one whose id starts with `text`; the files stay.

    Raises UsageError, AmbiguousIdError, NotFoundError.
    """
    config = config or load_config(None, None)
    catalog = Catalog(config.data_dir)
    file_id = resolve_prefix(text, catalog.ids(), what="share")
    entry = catalog.get(file_id)
    if entry is None:
        raise NotFoundError(f"the catalog entry of {text} is damaged; remove it by hand")
    item = _item(catalog, entry)
    catalog.remove(file_id)
    await _tell_node(config)
    return item


async def get(
    link: Link | str,
    config: Config | None = None,
    *,
    output: Path | None = None,
    peers: Sequence[Address] = (),
    only_nodes: Sequence[NodeId] = (),
    overwrite: bool = False,
    sha256: str | None = None,
    timeout: float | None = None,
    max_upload: float | None = None,
    max_download: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    seed: bool = False,
    on_complete: Callable[[Result], None] | None = None,
) -> Result:
    """Download a share from all peers at once, resuming what is there already.

    `timeout` is how long to go without a useful byte before giving up. With
    `seed` the finished content is shared, `on_complete` is called, and the
    function serves until it is cancelled.

    Raises UnavailableError (progress kept), AlreadyRunningError,
    WrongKeyError, VerificationError, DiskFullError, EnvironmentFault.
    """
    config = config or load_config(None, None)
    if isinstance(link, str):
        link = Link.parse(link)
    if sha256 is not None:
        checked_sha256(sha256)
    make_private_directory(config.data_dir)
    listen_on = Address(ANY_ADDRESS, 0)
    async with open_runtime(
        config,
        listen_on=listen_on,
        max_upload=limit(max_upload, config.transfer.max_upload),
        max_download=limit(max_download, config.transfer.max_download),
    ) as runtime:
        book = runtime.swarm.book
        for address in peers:
            book.add(link.file_id, address, Source.USER)
        for address in link.peers:
            book.add(link.file_id, address, Source.LINK)
        for text in config.discovery.peers:
            book.add(link.file_id, Address.parse(text), Source.CONFIG)
        order = Order(link.file_id, link.name, output, link.key, overwrite)
        terms = Terms(
            timeout=config.transfer.timeout if timeout is None else timeout,
            only_nodes=frozenset(only_nodes),
            sha256=sha256,
        )
        tell = on_event or (lambda event: None)
        runtime.swarm.report = lambda problem: tell(Note(problem))
        download = runtime.download(order, terms, tell)
        result = await download.run(runtime.links)
        if seed:
            await runtime.adopt(result, download.key)
        if on_complete is not None:
            on_complete(result)
        if seed:
            await trio.sleep_forever()
        return result


async def resume(
    file_id: FileId | str,
    config: Config | None = None,
    *,
    output: Path | None = None,
    peers: Sequence[Address] = (),
    only_nodes: Sequence[NodeId] = (),
    timeout: float | None = None,
    max_upload: float | None = None,
    max_download: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Take up an unfinished download from its resume data alone.

    Raises NotFoundError or DamagedResumeDataError without usable resume data,
    and otherwise as `get` does.
    """
    config = config or load_config(None, None)
    if isinstance(file_id, str):
        file_id = find_resume(file_id, config)
    show_resume(file_id, config)
    return await get(
        Link(file_id),
        config,
        output=output,
        peers=peers,
        only_nodes=only_nodes,
        timeout=timeout,
        max_upload=max_upload,
        max_download=max_download,
        on_event=on_event,
    )


async def detach(
    link: Link,
    config: Config | None = None,
    *,
    output: Path | None = None,
    peers: Sequence[Address] = (),
    overwrite: bool = False,
    sha256: str | None = None,
) -> None:
    """Hand a download to the node that runs in the data directory.

    A relative or missing `output` means this process's working directory.
    Raises UnavailableError if no node runs there.
    """
    config = config or load_config(None, None)
    if sha256 is not None:
        checked_sha256(sha256)
    where = Path.cwd() / (output or "")
    order = DetachedOrder(link, where, tuple(peers), overwrite, sha256)
    await call(config.api.socket, "POST", "/v1/downloads", order.encode())


async def status(config: Config | None = None) -> dict[str, object] | None:
    """What the running node says about itself; None if none runs."""
    config = config or load_config(None, None)
    try:
        return await call(config.api.socket, "GET", "/v1/status")
    except UnavailableError:
        return None


def identity(config: Config | None = None) -> NodeId:
    """This node's id, its key made on first use."""
    config = config or load_config(None, None)
    make_private_directory(config.data_dir)
    return load_or_create(config.data_dir).node_id


# --- helpers ------------------------------------------------------------------------


def _item(catalog: Catalog, entry: CatalogEntry) -> SharedItem:
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
        Link(entry.file_id, entry.name, (), entry.key),
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
        if not address.host.startswith("127."):
            found.append(Address(address.host, address.port, node_id))
    return found


def _served(shared: Shared, link: Link) -> Shared:
    return replace(shared, link=link, served=True)
