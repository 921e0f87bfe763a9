from __future__ import annotations

import trio
import trio.testing

from furymesh.net.buffers import (
    IDLE_BUFFERS,
    POOL_CEILING,
    POOL_MEMORY,
    SLAB_MEMORY,
    WANTED_SLABS,
    Buffers,
    SlabPool,
    Slabs,
)

MEBIBYTE = 1024 * 1024


def drain(pool: SlabPool) -> list[memoryview]:
    """Every slab that a pool lends."""
    slabs = []
    while (slab := pool.take()) is not None:
        slabs.append(slab)
    return slabs


def test_memory_bounds_the_slabs() -> None:
    pool = SlabPool(Slabs(10 * 1024), 1024)
    slabs = drain(pool)
    assert [len(slab) for slab in slabs] == [1024] * 10
    pool.give(slabs[3])
    assert pool.take() is slabs[3]


def test_large_chunks_get_more_up_to_a_ceiling() -> None:
    for size in (MEBIBYTE // 4, 4 * MEBIBYTE, 16 * MEBIBYTE):
        wanted = max(POOL_MEMORY, min(WANTED_SLABS * size, POOL_CEILING))
        assert SlabPool(Slabs(), size).limit == wanted // size
    assert POOL_CEILING <= SLAB_MEMORY


def test_downloads_share_the_memory() -> None:
    slabs = Slabs(12)
    one = SlabPool(slabs, 1)
    taken = drain(one)
    assert len(taken) == 12
    other = SlabPool(slabs, 1)
    assert other.take() is None  # but now it is known to want some
    one.give(taken.pop())
    assert one.take() is None
    assert len(drain(other)) == 1
    while taken:
        one.give(taken.pop())
    assert len(drain(one)) == len(drain(other)) + 1 == 6


def test_any_number_of_downloads_stays_within_the_memory() -> None:
    slabs = Slabs(8)
    pools = [SlabPool(slabs, 1) for _ in range(100)]
    taken = [(pool, slab) for pool in pools for slab in drain(pool)]
    assert len(taken) == 8
    waiting = next(pool for pool in pools if pool not in {owner for owner, _ in taken})
    assert waiting.take() is None
    owner, slab = taken[0]
    owner.give(slab)
    assert waiting.take() is not None


def test_idle_memory_goes_to_who_needs_it() -> None:
    slabs = Slabs(4)
    one, other = SlabPool(slabs, 1), SlabPool(slabs, 1)
    for slab in drain(one):
        one.give(slab)
    assert len(drain(other)) == 4


def test_closed_download_holds_nothing() -> None:
    slabs = Slabs(4)
    one, other = SlabPool(slabs, 1), SlabPool(slabs, 1)
    late = drain(one)
    one.close()
    one.give(late[0])
    assert len(drain(other)) == 4


async def test_everybody_who_waits_is_woken() -> None:
    """One of them may be gone, or have no use for a slab any more."""
    slabs = Slabs(4)
    pool, other = SlabPool(slabs, 1), SlabPool(slabs, 1)
    taken = drain(pool)
    woken = []

    async def wait(number: int) -> None:
        await (pool if number == 1 else other).wait()
        woken.append(number)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            leaving = trio.CancelScope()

            async def leave() -> None:
                with leaving:
                    await pool.wait()

            nursery.start_soon(leave)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait, 1)
            nursery.start_soon(wait, 2)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel()
            pool.give(taken[0])
    assert sorted(woken) == [1, 2]


def test_send_buffers_are_reused_and_not_hoarded() -> None:
    buffers = Buffers()
    taken = [buffers.take_send() for _ in range(IDLE_BUFFERS + 2)]
    for buffer in taken:
        buffers.give_send(buffer)
    again = [buffers.take_send() for _ in range(IDLE_BUFFERS)]
    assert {id(buffer) for buffer in again} <= {id(buffer) for buffer in taken}
