"""Memory of a chunk is lent again: who was banned writes no byte into an honest one's.

A poisoner is found out by one chunk while it is in the middle of the next. Its link
lives until the last word is out, which it does not let out, and meanwhile the memory
of its unfinished chunk goes to an honest peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Self

import trio

from furymesh.core.bitfield import mask_of
from furymesh.core.ids import FileId
from furymesh.core.link import Address
from furymesh.net.secure_link import GOODBYE_SECONDS
from furymesh.storage.bans import BanStore
from furymesh.wire import codec
from furymesh.wire import messages as m
from furymesh.wire.records import OVERHEAD
from tests.e2e.mesh import Mesh, same, write_blob
from tests.e2e.parts import keep_part
from tests.hostile.attacker import ANSWER_SECONDS, Wire, new_endpoint, wire
from tests.waiting import until

CHUNK = 32 * 1024  # two of them are asked of a new peer
CHUNKS = 96
RECORD = 4 * 1024
ROOM = 16 * 1024  # bytes that the kernel takes for a poisoner, who does not read
ROUNDS = 5  # poisoners, one after the other
FOUND_OUT = "sent a bad chunk"

Said = Callable[[], str]


class Uploader:
    """A peer with every chunk, which sends what it is told to, record by record."""

    def __init__(self, link: Wire, number: int, content: bytes) -> None:
        self.owed: deque[int] = deque()
        self.piece = trio.Lock()  # held while one is unfinished: nothing else is said then
        self._link = link
        self._number = number
        self._content = content

    @classmethod
    async def join(cls, link: Wire, file_id: FileId, content: bytes) -> Self:
        number = await link.join(file_id)
        await link.say(m.Bitmap(number, 0, b"", True))
        return cls(link, number, content)

    async def listen(self) -> None:
        """Note what is asked for; the link's end is an error."""
        while True:
            await self.hear()

    async def hear(self) -> None:
        match await self._link.hear():
            case m.Request(_, chunks):
                self.owed.extend(chunks)
            case m.Cancel(_, chunks):
                dropped = tuple(chunk for chunk in self.owed if chunk in chunks)
                self.owed = deque(chunk for chunk in self.owed if chunk not in chunks)
                if dropped:
                    async with self.piece:
                        await self._link.say(m.Reject(self._number, dropped, m.Reason.DONE))

    async def ask(self, chunks: list[int]) -> None:
        await self._link.say(m.Request(self._number, tuple(chunks)))

    def records(self, chunk: int, start: int = 0, end: int = CHUNK) -> Iterator[bytes]:
        """Bytes of a chunk, which are one piece, and before the first what they are."""
        if not start:
            yield codec.encode(m.Data(self._number, chunk, 0, CHUNK))
        for at in range(chunk * CHUNK + start, chunk * CHUNK + end, RECORD):
            yield self._content[at : at + RECORD]

    async def bring(self, *records: bytes) -> None:
        """Send these in one go."""
        out = memoryview(bytearray(sum(len(record) + OVERHEAD for record in records)))
        at = 0
        for record in records:
            at += self._link.link.sealing.seal_into(record, out, at)
        await self._link.tcp.send_all(out[:at])


async def taken_up(address: Address, file_id: FileId) -> None:
    """Return once the node takes part in the share."""
    with trio.fail_after(ANSWER_SECONDS):
        while True:
            async with wire(address) as link:
                await link.say(link.link.session.join(file_id))
                if isinstance(await link.await_message(m.Join, m.Refuse), m.Join):
                    return


async def lend_again(
    address: Address, file_id: FileId, content: bytes, honest: Uploader, other: Wire, said: Said
) -> tuple[bytes, bool]:
    """One poisoner is banned while it and an honest peer both send.

    Returns its node id, and whether its link can have lived all the while.
    """
    wrong = bytes(byte ^ 0xFF for byte in content)
    endpoint, before = new_endpoint(), said().count(FOUND_OUT)
    async with wire(address, endpoint, room=ROOM) as link:
        poisoner = await Uploader.join(link, file_id, wrong)
        while len(poisoner.owed) < 2:
            await poisoner.hear()
        await poisoner.ask(list(range(CHUNKS // 2)))
        await until(lambda: link.tcp.waiting() > ROOM // 2)  # the node cannot send on
        await until(lambda: honest.owed)
        first, second, honest_one = *list(poisoner.owed)[:2], honest.owed.popleft()
        begun = poisoner.records(second, 0, RECORD)
        await poisoner.bring(*poisoner.records(first), *begun)
        await until(lambda: said().count(FOUND_OUT) > before)
        found_out = trio.current_time()
        async with honest.piece:
            await honest.bring(*honest.records(honest_one, 0, CHUNK // 2))
            assert await other.answers()  # so the node has read what was sent before
            await poisoner.bring(*poisoner.records(second, RECORD))
            assert await other.answers()
            lived = trio.current_time() - found_out < GOODBYE_SECONDS
            await honest.bring(*honest.records(honest_one, CHUNK // 2))
    return endpoint.identity.node_id, lived


async def swarm(address: Address, file_id: FileId, content: bytes, said: Said) -> set[bytes]:
    """An honest peer beside one poisoner after the other, to the end; who they were."""
    poisoners, lived = set(), []
    await taken_up(address, file_id)
    async with wire(address) as link, wire(address) as other, trio.open_nursery() as nursery:
        await other.join(file_id)
        honest = await Uploader.join(link, file_id, content)
        nursery.start_soon(honest.listen)
        for _ in range(ROUNDS):
            one, whether = await lend_again(address, file_id, content, honest, other, said)
            poisoners.add(one)
            lived.append(whether)
        while "finished" not in said():
            await until(lambda: honest.owed or "finished" in said())
            while honest.owed:
                await honest.bring(*honest.records(honest.owed.popleft()))
        nursery.cancel_scope.cancel()
    assert any(lived), "no link lived on: nothing was tried"
    return poisoners


def test_honest_peer_is_not_blamed_for_what_a_banned_one_still_sends(mesh: Mesh) -> None:
    source = write_blob(mesh.root / "film.bin", CHUNK * CHUNKS, seed=1)
    content = source.read_bytes()
    maker, user = mesh.home("maker"), mesh.home("user")
    shared = mesh.share(maker, source, chunk_size=CHUNK)
    result = mesh.root / "result.bin"
    keep_part(
        user,
        shared.file_id,
        manifests=maker,
        source=source,
        output=result,
        chunks=mask_of(range(CHUNKS // 2)),  # what poisoners ask for and do not take
    )
    node = mesh.node(user)
    assert mesh.call(user, "get", shared.link.text, "--detach", "--output", result).code == 0
    poisoners = trio.run(
        swarm, Address.parse(node.address), shared.file_id, content, lambda: node.process.err
    )
    assert same(result, source)
    bans, problems = BanStore(user).load()
    assert not problems
    assert {ban.node_id for ban in bans} == poisoners
    assert node.process.stop().code == 0
