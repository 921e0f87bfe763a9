"""Where a mirror may be, and whereto it may send us on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Address, Mirror
from furymesh.sources import guard as module
from furymesh.sources.guard import MAX_PLACES, Guard
from furymesh.sources.source import UnfitMirrorError

PUBLIC, OTHER = "8.8.8.8", "1.1.1.1"  # never connected to

Names = Callable[[dict[str, list[str]]], list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Makes names mean these addresses; returns which were asked for."""

    def means(table: dict[str, list[str]]) -> list[str]:
        asked: list[str] = []

        async def resolved(address: Address, threads: object) -> list[str]:
            asked.append(address.host)
            return list(table.get(address.host, [address.host]))

        monkeypatch.setattr(module, "resolved", resolved)
        return asked

    return means


def at(host: str) -> Address:
    return Address(host, 443)


def guard(host: str, *, own: bool = False, private: bool = False) -> Guard:
    return Guard(Mirror("https", at(host), "/f"), own=own, private=private)


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fe80::1", "fd00::1",
           "::ffff:127.0.0.1", "100.64.0.1"]
)  # fmt: skip
async def test_a_link_leads_to_no_private_address(ip: str, names: Names) -> None:
    names({"m.example": [ip]})
    with pytest.raises(UnfitMirrorError, match="private address; name it with --mirror"):
        await guard("m.example").ip(at("m.example"))
    assert await guard("m.example", private=True).ip(at("m.example")) == ip
    assert await guard("m.example", own=True).ip(at("m.example")) == ip


async def test_of_several_addresses_only_public_ones_are_used(names: Names) -> None:
    names({"m.example": ["10.0.0.1", PUBLIC]})
    assert await guard("m.example").ip(at("m.example")) == PUBLIC


async def test_a_name_is_looked_up_once_so_its_address_cannot_change(names: Names) -> None:
    table = {"m.example": [PUBLIC]}
    asked = names(table)
    mirror = guard("m.example")
    assert await mirror.ip(at("m.example")) == PUBLIC
    table["m.example"] = ["127.0.0.1"]
    assert await mirror.ip(at("m.example")) == PUBLIC
    assert asked == ["m.example"]


async def test_addresses_that_fail_are_used_up_before_the_name_is_looked_up_again(
    names: Names,
) -> None:
    asked = names({"m.example": [PUBLIC, OTHER]})
    mirror, place = guard("m.example"), at("m.example")
    assert await mirror.ip(place) == PUBLIC
    mirror.failed(place)
    assert await mirror.ip(place) == OTHER
    mirror.failed(place)
    mirror.failed(place)
    assert await mirror.ip(place) == PUBLIC
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("home", "there", "own", "allowed"),
    [
        (PUBLIC, OTHER, False, True),
        (PUBLIC, "10.0.0.1", False, False),
        (PUBLIC, "127.0.0.1", True, False),
        (PUBLIC, "169.254.169.254", True, False),
        ("192.168.0.1", "192.168.0.2", True, True),
        ("192.168.0.1", "127.0.0.1", True, False),
        ("192.168.0.1", "169.254.169.254", True, False),
        ("127.0.0.1", "127.0.0.1", True, True),
        ("127.0.0.1", "169.254.169.254", True, False),
    ],
)
async def test_redirects_lead_no_deeper_than_the_user_meant(
    home: str, there: str, own: bool, allowed: bool, names: Names
) -> None:
    names({"m.example": [home], "n.example": [there]})
    mirror = guard("m.example", own=own)
    assert await mirror.ip(at("m.example")) == home
    if allowed:
        assert await mirror.ip(at("n.example")) == there
    else:
        with pytest.raises(UnfitMirrorError, match="redirects to a private address"):
            await mirror.ip(at("n.example"))


async def test_where_private_mirrors_are_allowed_so_are_their_redirects(names: Names) -> None:
    names({"m.example": [PUBLIC], "n.example": ["10.0.0.1"]})
    mirror = guard("m.example", private=True)
    await mirror.ip(at("m.example"))
    assert await mirror.ip(at("n.example")) == "10.0.0.1"


async def test_hosts_that_redirects_name_are_not_remembered_without_end(names: Names) -> None:
    asked = names({"m.example": [PUBLIC]})
    mirror = guard("m.example")
    await mirror.ip(at("m.example"))
    for number in range(MAX_PLACES + 1):
        await mirror.ip(at(f"8.8.4.{number}"))
    await mirror.ip(at("8.8.4.0"))
    assert asked.count("8.8.4.0") == 2
    assert len(mirror._places) == MAX_PLACES


async def test_what_is_no_host_is_tried_again_later() -> None:
    with pytest.raises(UnavailableError, match="no usable address"):
        await guard("255.255.255.255").ip(at("255.255.255.255"))
