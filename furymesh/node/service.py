"""The long-lived node: serves the catalog, obeys the control API, finishes orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import trio

from furymesh.core.errors import FuryMeshError, UnavailableError
from furymesh.core.ids import FileId, NodeId, node_id_text
from furymesh.core.link import Address
from furymesh.core.paths import shown
from furymesh.net.tasks import open_tasks
from furymesh.node.config import Config
from furymesh.node.control import serve_control
from furymesh.node.orders import DetachedOrder, Orders
from furymesh.node.resumes import with_hints
from furymesh.node.runtime import Runtime, limit, open_runtime
from furymesh.storage.files import make_private_directory
from furymesh.storage.lock import FileLock
from furymesh.storage.order import Order
from furymesh.swarm.download import Download, Terms
from furymesh.swarm.events import Event, Note
from furymesh.swarm.peers import known_peers

RETRY_SECONDS = 30.0  # before an order that found no peer looks again
PATIENCE = 3600.0  # an order waits this long for a peer before it starts over


class Node:
    """A peer that runs until it is cancelled. One per data directory.

    Always true: an order that was taken on (`_orders_at_work`) has exactly one
    task, which lives until the order is done or has failed; whatever happens
    in that task ends as a note and never as the end of the node.
    """

    def __init__(
        self,
        config: Config,
        *,
        on_event: Callable[[Event], None] | None = None,
        passphrase: str | None = None,
    ) -> None:
        """`passphrase` opens the keys where one is set, else a file that is named for it."""
        self.config = config
        self._passphrase = passphrase
        self.runtime: Runtime
        self._on_event = on_event or (lambda event: None)
        self._orders: Orders
        self._orders_at_work: set[FileId] = set()
        self._downloads: dict[FileId, Download] = {}
        self._peers: tuple[Address, ...] = ()
        self._tasks: trio.Nursery

    @property
    def node_id(self) -> NodeId:
        return self.runtime.endpoint.identity.node_id

    @property
    def addresses(self) -> list[str]:
        """Where this node accepts links, as host:port."""
        return self.runtime.addresses

    async def run(
        self,
        *,
        listen: Address | None = None,
        peers: Sequence[Address] = (),
        allow: Sequence[NodeId] = (),
        max_upload: float | None = None,
        max_download: float | None = None,
        task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; `task_status` is given this node once it listens.

        Without `listen` the configured address is used. Limits are bytes per
        second. Raises AlreadyRunningError if a node runs in this data
        directory, EnvironmentFault for a taken port or an unwritable directory.
        """
        make_private_directory(self.config.data_dir)
        lock = FileLock(self.config.data_dir / "node.lock", what="in use")
        lock.acquire("furymesh node")
        try:
            where = listen or Address.parse(self.config.node.listen, any_port=True)
            async with open_runtime(
                self.config,
                listen_on=where,
                allow=allow,
                max_upload=limit(max_upload, self.config.node.max_upload),
                max_download=limit(max_download, self.config.node.max_download),
                passphrase=self._passphrase,
                lasting=True,
            ) as runtime:
                self.runtime = runtime
                self._orders = Orders(self.config.data_dir, runtime.protection)
                runtime.swarm.report = self._tell
                self._peers = tuple(peers)
                await self._serve(task_status)
        finally:
            lock.release()

    async def _serve(self, task_status: trio.TaskStatus[Node]) -> None:
        async with open_tasks() as nursery:
            self._tasks = nursery
            for problem in (*self.runtime.problems, *await self.reload()):
                self._tell(problem)
            orders, problems = await trio.to_thread.run_sync(self._orders.list)
            for problem in problems:
                self._tell(problem)
            for order in orders:
                self._orders_at_work.add(order.link.file_id)
                nursery.start_soon(self._work_on, order)
            if self.config.api.enabled:
                await nursery.start(serve_control, self, self.config.api.socket)
            task_status.started(self)
            await trio.sleep_forever()

    # --- what the control API may do --------------------------------------------------

    def status(self) -> dict[str, Any]:
        swarm = self.runtime.swarm
        return {
            "node_id": node_id_text(self.node_id),
            "addresses": self.addresses,
            "links": len(swarm.links),
            "relays": [
                {
                    "address": str(relay.address),
                    "linked": relay.link is not None,
                    "public_address": str(Address(*place))
                    if (place := relay.public_address)
                    else None,
                }
                for relay in self.runtime.discovery.relays
            ],
            "shares": [
                {"file_id": share.file_id.hex(), "name": share.name, "members": len(share.members)}
                for share in swarm.shares.values()
            ],
            "downloads": [
                {"file_id": file_id.hex(), "chunks_done": download.chunks_done}
                for file_id, download in self._downloads.items()
            ],
        }

    def peers(self) -> dict[str, Any]:
        swarm = self.runtime.swarm
        return {
            "shares": [file_id.hex() for file_id in swarm.shares],
            "troubles": list(swarm.troubles()),
            "peers": [
                {
                    "file_id": peer.file_id.hex() if peer.file_id else None,
                    "node_id": node_id_text(peer.node_id) if peer.node_id else None,
                    "address": peer.address,
                    "found": peer.found,
                    "relayed": peer.relayed,
                    "state": peer.state,
                }
                for peer in known_peers(swarm)
            ],
        }

    async def reload(self) -> list[str]:
        return await self.runtime.load_catalog()

    async def accept(self, order: dict[str, Any]) -> dict[str, Any]:
        detached = DetachedOrder.decode(order)
        file_id = detached.link.file_id
        if file_id not in self._orders_at_work:
            self._orders_at_work.add(file_id)
            try:
                await trio.to_thread.run_sync(self._orders.add, detached)
            except BaseException:
                self._orders_at_work.discard(file_id)
                raise
            self._tasks.start_soon(self._work_on, detached)
        return {"file_id": file_id.hex()}

    # --- orders -----------------------------------------------------------------------

    async def _work_on(self, order: DetachedOrder) -> None:
        """Try until it is done; only a stated fault other than no peer ends it before."""
        file_id = order.link.file_id
        name = shown(order.link.name or file_id.hex()[:16])
        try:
            while not self.runtime.has(file_id):
                self.runtime.make_way(file_id)
                try:
                    return await self._download(order)
                except UnavailableError as error:
                    self._tell(f"{name}: {error}")
                    await trio.sleep(RETRY_SECONDS)
            # Shared meanwhile, or finished by a run that was killed before it could say so.
            await trio.to_thread.run_sync(self._orders.remove, file_id)
            self._tell(f"{name} is here already: nothing to download")
        except FuryMeshError as error:
            self._tell(f"{name}: {error}")
        except Exception as error:
            self._tell(f"{name}: a bug of furymesh, worth a report: {shown(repr(error))}")
        finally:
            self._orders_at_work.discard(file_id)

    async def _download(self, order: DetachedOrder) -> None:
        """Fetch and publish what was ordered, then share it from now on."""
        link = await trio.to_thread.run_sync(with_hints, order.link, self.config)
        download = self.runtime.download(
            Order.of(
                link,
                output=order.output,
                overwrite=order.overwrite,
                detached=True,
                own_mirrors=order.mirrors,
            ),
            Terms(
                timeout=PATIENCE,
                sha256=order.sha256,
                private_mirrors=self.config.transfer.private_mirrors,
            ),
            self._on_event,
        )
        self._downloads[link.file_id] = download
        try:
            with (
                self.runtime.discovery.following(link, (*order.peers, *self._peers)),
                self.runtime.limited(download),
            ):
                result = await download.run(self.runtime.links)
        finally:
            self._downloads.pop(link.file_id, None)
        path = shown(str(result.path))
        try:
            await self.runtime.adopt(result, replace(link, key=download.key), download.facts)
        except FuryMeshError as error:
            # It is done all the same: to fetch it again would not help.
            self._tell(f"{path} is not shared on: {error}")
        await trio.to_thread.run_sync(self._orders.remove, result.file_id)
        self._tell(f"finished {path}")

    def _tell(self, text: str) -> None:
        self._on_event(Note(text))
