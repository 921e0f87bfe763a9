from __future__ import annotations

import trio
import trio.testing

from furymesh.net.buffers import (
    IDLE_BUFFERS,
    MIN_SLABS,
    SLAB_BUDGET,
    SLAB_CEILING,
    WANTED_SLABS,
    Buffers,
    SlabPool,
    slab_budget,
)


def test_budget_bounds_the_slabs() -> None:
    pool = SlabPool(1024, budget=10 * 1024)
    slabs = [pool.take() for _ in range(10)]
    assert all(slab is not None and len(slab) == 1024 for slab in slabs)
    assert pool.take() is None
    assert slabs[3] is not None
    pool.give(slabs[3])
    assert pool.take() is slabs[3]


def test_largest_chunks_still_get_some() -> None:
    pool = SlabPool(1024 * 1024, budget=1)
    assert sum(pool.take() is not None for _ in range(MIN_SLABS + 1)) == MIN_SLABS


def test_large_chunks_get_more_up_to_a_ceiling() -> None:
    mebibyte = 1024 * 1024
    assert slab_budget(mebibyte // 4) == SLAB_BUDGET
    assert SlabPool(4 * mebibyte, slab_budget(4 * mebibyte)).limit == WANTED_SLABS
    assert slab_budget(16 * mebibyte) == SLAB_CEILING


async def test_everybody_who_waits_is_woken() -> None:
    """One of them may be gone, or have no use for a slab any more."""
    pool = SlabPool(16, budget=16 * MIN_SLABS)
    slabs = [pool.take() for _ in range(MIN_SLABS)]
    woken = []

    async def wait(number: int) -> None:
        await pool.wait()
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
            assert slabs[0] is not None
            pool.give(slabs[0])
    assert sorted(woken) == [1, 2]


def test_send_buffers_are_reused_and_not_hoarded() -> None:
    buffers = Buffers()
    taken = [buffers.take_send() for _ in range(IDLE_BUFFERS + 2)]
    for buffer in taken:
        buffers.give_send(buffer)
    again = [buffers.take_send() for _ in range(IDLE_BUFFERS)]
    assert {id(buffer) for buffer in again} <= {id(buffer) for buffer in taken}
