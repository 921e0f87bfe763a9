from __future__ import annotations

import pytest

from furymesh.core.errors import UsageError
from furymesh.core.link import Address


@pytest.mark.parametrize(
    "host",
    ["a..b", "a.", ".a", "a..", "..", "x" * 64, "a." + "x" * 64, "x" * 64 + ".", "a.-b", "a-.b"],
)
def test_hosts_that_no_resolver_takes_are_refused(host: str) -> None:
    if host == "a.":  # the root at the end is a name like any other
        assert Address.parse(f"{host}:1").host == host
        return
    with pytest.raises(UsageError, match="not a name"):
        Address.parse(f"{host}:1")


@pytest.mark.parametrize("scope", ["..", "a..b", ".a", "a.", "", "a" * 16, "a.b." + "c" * 12])
def test_scopes_that_no_resolver_takes_are_refused(scope: str) -> None:
    with pytest.raises(UsageError, match="not an IPv6 address"):
        Address.parse(f"[fe80::1%{scope}]:1")


@pytest.mark.parametrize("scope", ["eth0.100", "wlan-1_", "a" * 15])
def test_accepted_scopes_can_be_looked_up(scope: str) -> None:
    assert Address.parse(f"[fe80::1%{scope}]:1").host.encode("idna")


@pytest.mark.parametrize("host", ["x" * 63, "a.b", "x" * 63 + ".y.", "_srv._tcp.a", "10.0.0.1"])
def test_accepted_hosts_can_be_looked_up(host: str) -> None:
    assert Address.parse(f"{host}:1").host.encode("idna")
