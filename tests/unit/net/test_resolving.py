from __future__ import annotations

import socket

import pytest
import trio

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Address
from furymesh.net.resolving import resolved


async def look_up(host: str, family: int = socket.AF_UNSPEC) -> list[str]:
    return await resolved(Address(host, 80), trio.CapacityLimiter(1), family)


@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "::", "ff02::1", "no-such-host.invalid"])
async def test_nobody_is_everybody_or_nobody(host: str) -> None:
    with pytest.raises(UnavailableError):
        await look_up(host)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "fe80::7%lo"])
async def test_an_ip_address_is_what_it_is(host: str) -> None:
    assert await look_up(host) == [host]


async def test_only_addresses_of_the_family_that_is_asked_for_are_used() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET6), ("::1", socket.AF_INET)):
        with pytest.raises(UnavailableError):
            await look_up(host, family)
        assert await look_up(host, socket.AF_INET + socket.AF_INET6 - family) == [host]
    assert await look_up("localhost", socket.AF_INET) == ["127.0.0.1"]
