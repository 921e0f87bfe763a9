"""Whose turn it is: in order of coming, and at once when somebody leaves."""

from __future__ import annotations

from random import Random

from furymesh.sync.turns import Turns


def test_the_first_has_a_turn_and_the_others_wait_in_order() -> None:
    turns: Turns[str] = Turns(1)
    assert [turns.enter(who) for who in "abc"] == [0, 1, 2]
    assert turns.leave("a") == ["b", "c"]
    assert [turns.place(who) for who in "bc"] == [0, 1]


def test_who_leaves_the_queue_moves_only_those_behind() -> None:
    turns: Turns[str] = Turns(2)
    for who in "abcde":
        turns.enter(who)
    assert [turns.place(who) for who in "abcde"] == [0, 0, 1, 2, 3]
    assert turns.leave("d") == ["e"]
    assert turns.leave("d") == []
    assert turns.leave("b") == ["c", "e"]
    assert [turns.place(who) for who in "ace"] == [0, 0, 1]


def test_who_comes_again_keeps_the_place() -> None:
    turns: Turns[str] = Turns(1)
    for who in "abc":
        turns.enter(who)
    assert turns.replace("b", "B") == 1
    assert turns.replace("a", "A") == 0
    assert turns.leave("a") == []
    assert turns.leave("A") == ["B", "c"]
    assert len(turns) == 2


def test_nobody_starves_whatever_the_others_do() -> None:
    for seed in range(200):
        rng = Random(seed)
        sessions = rng.randrange(1, 4)
        turns: Turns[int] = Turns(sessions)
        order: list[int] = []
        for who in range(60):
            turns.enter(who)
            order.append(who)
            for _ in range(rng.randrange(3)):
                if order:
                    gone = rng.choice(order)
                    before = {one: turns.place(one) for one in order if one != gone}
                    moved = turns.leave(gone)
                    order.remove(gone)
                    after = {one: turns.place(one) for one in order}
                    assert after == {
                        one: max(at - sessions + 1, 0) for at, one in enumerate(order)
                    }, seed
                    changed = {one for one in order if before[one] != after[one]}
                    assert changed <= set(moved), seed
