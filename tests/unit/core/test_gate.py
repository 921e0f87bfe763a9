from __future__ import annotations

from furymesh.core.gate import MAX_SENDERS, Gate


def admitted(gate: Gate, sender: str, now: float, tries: int = 1000) -> int:
    return sum(gate.admits(sender, now) for _ in range(tries))


def test_each_sender_has_its_share_and_no_more() -> None:
    gate = Gate(each=10, total=1000)
    assert admitted(gate, "one", 0.0) == 20
    assert admitted(gate, "two", 0.0) == 20
    assert admitted(gate, "one", 1.0) == 10
    assert admitted(gate, "one", 100.0) == 20


def test_all_together_have_no_more_than_theirs() -> None:
    gate = Gate(each=10, total=50)
    assert sum(admitted(gate, f"{number}", 0.0) for number in range(100)) == 100
    assert sum(admitted(gate, f"{number}", 2.0) for number in range(100)) == 100


def test_one_who_sends_too_much_takes_nothing_from_the_others() -> None:
    gate = Gate(each=10, total=50)
    admitted(gate, "flood", 0.0, tries=10_000)
    assert admitted(gate, "honest", 0.0) == 20


def test_many_who_send_too_much_leave_room_for_one_more() -> None:
    gate = Gate(each=10, total=50)
    for tick in range(1000):
        now = tick / 10
        for number in range(200):
            gate.admits(f"{number}", now)  # each within its limit
        if tick % 20 == 19:
            assert gate.admits("honest", now)


def test_the_table_is_bounded() -> None:
    gate = Gate(each=10, total=1e9)
    for number in range(3 * MAX_SENDERS):
        gate.admits(f"{number}", 0.0)
    assert len(gate) == MAX_SENDERS
