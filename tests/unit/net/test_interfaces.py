from __future__ import annotations

import ipaddress

import pytest

from furymesh.net import interfaces
from furymesh.net.addresses import is_link_local
from furymesh.net.interfaces import LOOPBACK, address_towards, local_ipv4, reachable_hosts
from tests.limits import open_files


def test_loopback_is_found_and_last() -> None:
    found = local_ipv4()
    assert LOOPBACK in found
    assert all(ipaddress.IPv4Address(address) for address in found)
    assert [address.startswith("127.") for address in found] == sorted(
        address.startswith("127.") for address in found
    )


def test_bound_host_is_itself() -> None:
    assert reachable_hosts("192.0.2.1") == ["192.0.2.1"]


def test_any_interface_is_all_of_them() -> None:
    assert reachable_hosts("0.0.0.0") == local_ipv4()


@pytest.mark.parametrize("failure", [OSError, AttributeError])
def test_without_the_means_there_is_still_loopback(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def fail() -> list[str]:
        raise failure

    monkeypatch.setattr(interfaces, "local_ipv4", fail)
    assert reachable_hosts("0.0.0.0") == [LOOPBACK]


def test_without_a_descriptor_there_is_no_way_to_anybody() -> None:
    assert address_towards("127.0.0.1", 9) == LOOPBACK
    with open_files(0):
        found = address_towards("127.0.0.1", 9)
    assert found is None


def test_what_works_has_an_address() -> None:
    found = {interface.name: interface for interface in interfaces.interfaces()}
    assert found["lo"].ipv4 == LOOPBACK
    assert all(interface.ipv4 or interface.link_local for interface in found.values())
    assert all(is_link_local(i.link_local) for i in found.values() if i.link_local)
