"""Hosts behind NATs: a host of a lab becomes a router, and its guest lives behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from tests.netns.lab import Host, _run

ROUTER, GUEST = "192.168.7.1", "192.168.7.2"
INSIDE = "192.168.7.0/24"


class Nat(Enum):
    """What a router does with connections, in the terms of RFC 3489."""

    SYMMETRIC = auto()  # another port for each destination, answers from there alone
    PORT_RESTRICTED = auto()  # the guest's own port, answers from known places alone
    FULL_CONE = auto()  # the guest's own port, and whoever comes to it is let in


@dataclass(frozen=True, slots=True)
class Guest:
    """A namespace whose only way out is a host of the lab."""

    router: Host
    namespace: str

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` run here; the process keeps its pid."""
        return ["ip", "netns", "exec", self.namespace, *argv]


def behind(router: Host, kind: Nat) -> Guest:
    """Make `router` a NAT of this kind and put a guest behind it; both go with the lab.

    Raises LabError where the kernel has no NAT.
    """
    guest = Guest(router, f"{router.namespace}-in")
    router.lab.namespace(guest.namespace)
    pair = ("type", "veth", "peer", "name", "eth0", "netns", guest.namespace)
    _run("ip", "-n", router.namespace, "link", "add", "lan0", *pair)
    for place, device, address in (
        (router.namespace, "lan0", ROUTER),
        (guest.namespace, "eth0", GUEST),
    ):
        _run("ip", "-n", place, "addr", "add", f"{address}/24", "dev", device)
        _run("ip", "-n", place, "link", "set", device, "up")
    _run("ip", "-n", guest.namespace, "link", "set", "lo", "up")
    _run("ip", "-n", guest.namespace, "route", "add", "default", "via", ROUTER)
    _run(*router.command(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
    outwards = ("-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-p", "tcp", "-j", "MASQUERADE")
    _rule(router, *outwards, *(["--random-fully"] if kind is Nat.SYMMETRIC else []))
    if kind is Nat.FULL_CONE:
        inwards = ("-i", "eth0", "-p", "tcp", "-j", "DNAT", "--to-destination", GUEST)
        _rule(router, "-t", "nat", "-A", "PREROUTING", *inwards)
    else:
        unasked = ("-i", "eth0", "-m", "conntrack", "--ctstate", "NEW,INVALID", "-j", "DROP")
        _rule(router, "-A", "INPUT", *unasked)
        forwarded = ("-i", "eth0", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")
        _rule(router, "-A", "FORWARD", *forwarded)
        _rule(router, "-A", "FORWARD", *unasked)
    return guest


def _rule(router: Host, *rule: str) -> None:
    _run(*router.command(["iptables", "-w", *rule]))
