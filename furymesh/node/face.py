"""The library's front door: what ``import furymesh`` offers and the commands use.

Every function raises only the errors of ``furymesh.core.errors``. Sizes are
bytes, rates bytes per second, times seconds. The functions that move data are
async and run under trio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.ids import FileId, NodeId, resolve_prefix
from furymesh.core.link import Address, Link, Mirror
from furymesh.net.identity import load_or_create, stored_node_id
from furymesh.net.interfaces import ANY
from furymesh.node.config import Config, load_config
from furymesh.node.control_client import call
from furymesh.node.orders import DetachedOrder, checked_sha256
from furymesh.node.passphrase import opened_protection
from furymesh.node.resumes import find_resume, show_resume, with_hints
from furymesh.node.runtime import limit, open_runtime
from furymesh.node.shares import Shared as Shared
from furymesh.node.shares import SharedItem as SharedItem
from furymesh.node.shares import share as share
from furymesh.node.shares import shares as shares
from furymesh.node.shares import shares_with_keys as shares_with_keys
from furymesh.node.shares import unshare as unshare
from furymesh.node.verify import Verified as Verified
from furymesh.node.verify import verify as verify
from furymesh.storage.files import make_private_directory
from furymesh.storage.order import Order
from furymesh.swarm.download import Terms
from furymesh.swarm.events import Event, Note, Result


async def get(
    link: Link | str,
    config: Config | None = None,
    *,
    output: Path | None = None,
    peers: Sequence[Address] = (),
    mirrors: Sequence[Mirror] = (),
    only_nodes: Sequence[NodeId] = (),
    overwrite: bool = False,
    sha256: str | None = None,
    timeout: float | None = None,
    max_upload: float | None = None,
    max_download: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    seed: bool = False,
    on_complete: Callable[[Result], None] | None = None,
    passphrase: str | None = None,
) -> Result:
    """Download a share from all peers at once, resuming what is there already.

    `mirrors` are used besides those of the link, and may be at private addresses.
    `timeout` is how long to go without a useful byte before giving up. With
    `seed` the finished content is shared, `on_complete` is called, and the
    function serves until it is cancelled. `passphrase` opens this node's keys
    where one is set, else a file that is named for it.

    Raises UnavailableError (progress kept), AlreadyRunningError,
    WrongKeyError, VerificationError, DiskFullError, EnvironmentFault,
    PassphraseNeededError, PassphraseError.
    """
    config = config or load_config(None, None)
    if isinstance(link, str):
        link = Link.parse(link)
    if sha256 is not None:
        checked_sha256(sha256)
    make_private_directory(config.data_dir)
    listen_on = Address(ANY, 0)
    async with open_runtime(
        config,
        listen_on=listen_on,
        max_upload=limit(max_upload, config.transfer.max_upload),
        max_download=limit(max_download, config.transfer.max_download),
        passphrase=passphrase,
    ) as runtime:
        link = await trio.to_thread.run_sync(with_hints, link, config)
        order = Order.of(link, output=output, overwrite=overwrite, own_mirrors=tuple(mirrors))
        terms = Terms(
            timeout=config.transfer.timeout if timeout is None else timeout,
            only_nodes=frozenset(only_nodes),
            sha256=sha256,
            private_mirrors=config.transfer.private_mirrors,
        )
        tell = on_event or (lambda event: None)
        runtime.swarm.report = lambda problem: tell(Note(problem))
        for problem in runtime.problems:
            tell(Note(problem))
        download = runtime.download(order, terms, tell)
        with runtime.discovery.following(link, peers):
            result = await download.run(runtime.links)
            if seed:
                await runtime.adopt(result, replace(link, key=download.key), download.facts)
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
    mirrors: Sequence[Mirror] = (),
    only_nodes: Sequence[NodeId] = (),
    timeout: float | None = None,
    max_upload: float | None = None,
    max_download: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    passphrase: str | None = None,
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
        mirrors=mirrors,
        only_nodes=only_nodes,
        timeout=timeout,
        max_upload=max_upload,
        max_download=max_download,
        on_event=on_event,
        passphrase=passphrase,
    )


async def detach(
    link: Link,
    config: Config | None = None,
    *,
    output: Path | None = None,
    peers: Sequence[Address] = (),
    mirrors: Sequence[Mirror] = (),
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
    order = DetachedOrder(link, where, tuple(peers), overwrite, sha256, tuple(mirrors))
    await call(config.api.socket, "POST", "/v1/downloads", order.encode())


async def status(config: Config | None = None) -> dict[str, object] | None:
    """What the running node says about itself; None if none runs."""
    config = config or load_config(None, None)
    try:
        return await call(config.api.socket, "GET", "/v1/status")
    except UnavailableError:
        return None


async def peers(config: Config | None = None, share: str | None = None) -> list[dict[str, object]]:
    """The peers of the running node, those of one share if its id, or a prefix, is given.

    Each has ``file_id`` (None: no share in common yet), ``node_id`` (None: not
    known yet), ``address``, ``found``, ``relayed`` and ``state``. Raises
    UnavailableError if no node runs, NotFoundError or AmbiguousIdError for the id.
    """
    config = config or load_config(None, None)
    told = await call(config.api.socket, "GET", "/v1/peers")
    if share is None:
        return list(told["peers"])
    known = [FileId(bytes.fromhex(text)) for text in told["shares"]]
    what = "share or download of the running node"
    wanted = resolve_prefix(share, known, what=what, listed="furymesh peers").hex()
    return [peer for peer in told["peers"] if peer["file_id"] == wanted]


async def troubles(config: Config | None = None) -> list[str]:
    """Why the running node finds fewer peers than it might, a line for each reason.

    Raises UnavailableError if no node runs.
    """
    config = config or load_config(None, None)
    told = await call(config.api.socket, "GET", "/v1/peers")
    return [str(line) for line in told["troubles"]]


def identity(config: Config | None = None, *, passphrase: str | None = None) -> NodeId:
    """This node's id, its key made on first use; only then a passphrase is needed."""
    config = config or load_config(None, None)
    node_id = stored_node_id(config.data_dir)
    if node_id is not None:
        return node_id
    with opened_protection(config, passphrase) as protection:
        return load_or_create(config.data_dir, protection).node_id
