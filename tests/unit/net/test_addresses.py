from __future__ import annotations

import pytest

from furymesh.net.addresses import is_loopback, may_lead, may_mean, same_machine


def test_machines_are_told_apart() -> None:
    assert same_machine("192.0.2.1") == same_machine("::ffff:192.0.2.1")
    assert same_machine("192.0.2.1") != same_machine("192.0.2.2")
    assert same_machine("2001:db8::1") == same_machine("2001:db8::ffff:2")
    assert same_machine("2001:db8::1") != same_machine("2001:db8:0:1::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback("192.0.2.1")
    assert not is_loopback("localhost")


@pytest.mark.parametrize(
    ("host", "teller", "believed"),
    [
        ("192.0.2.1", "198.51.100.1", True),
        ("10.0.0.1", "10.0.0.2", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.2", False),
        ("::1", "2001:db8::1", False),
        ("fe80::1", "2001:db8::1", False),
        ("169.254.1.1", "169.254.1.2", True),
        ("0.0.0.0", "127.0.0.1", False),
        ("::", "::1", False),
        ("224.0.0.1", "10.0.0.2", False),
        ("255.255.255.255", "10.0.0.2", False),
    ],
)
def test_what_is_believed_of_whom(host: str, teller: str, believed: bool) -> None:
    assert may_mean(host, teller) is believed


@pytest.mark.parametrize(
    ("host", "teller", "followed"),
    [
        ("9.9.9.9", "8.8.8.8", True),
        ("9.9.9.9", "10.0.0.2", True),
        ("9.9.9.9", "", True),
        ("2606:4700::1111", "", True),
        ("10.0.0.1", "10.0.0.2", True),
        ("192.168.1.1", "10.0.0.2", True),
        ("fd00::1", "fd00::2", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.1", "8.8.8.8", False),
        ("10.0.0.1", "2606:4700::1111", False),
        ("10.0.0.1", "", False),
        ("100.64.0.1", "8.8.8.8", False),
        ("192.168.1.1", "8.8.8.8", False),
        ("fd00::1", "8.8.8.8", False),
        ("::ffff:10.0.0.1", "8.8.8.8", False),
        ("127.0.0.1", "8.8.8.8", False),
        ("127.0.0.1", "10.0.0.2", False),
        ("fe80::1", "8.8.8.8", False),
        ("224.0.0.1", "10.0.0.2", False),
        ("t.example", "8.8.8.8", False),
    ],
)
def test_who_may_send_us_where(host: str, teller: str, followed: bool) -> None:
    assert may_lead(host, teller) is followed
