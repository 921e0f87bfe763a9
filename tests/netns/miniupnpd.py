"""miniupnpd, of which most home routers have a copy, on a router of the lab."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.netns.lab import _run
from tests.netns.nat import INSIDE, Guest

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/sbin"
NEEDED = ("miniupnpd", "nft")
# As its own script makes them; what it forwards comes into them.
CHAINS = """
table inet filter {
    chain forward { type filter hook forward priority 0; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"""


def why_not() -> str | None:
    """Say why it cannot run here, or None when it can."""
    missing = [tool for tool in NEEDED if shutil.which(tool, path=PATH) is None]
    return f"the programs {', '.join(missing)} are not installed" if missing else None


def start(guest: Guest, directory: Path, *, upnp: bool, natpmp: bool) -> subprocess.Popen[bytes]:
    """Let the router of a guest speak UPnP-IGD, or NAT-PMP and PCP, until the lab ends."""
    router = guest.router
    chains, config = directory / "chains.nft", directory / "miniupnpd.conf"
    chains.write_text(CHAINS)
    _run(*router.command(["nft", "-f", str(chains)]))
    config.write_text(
        "ext_ifname=eth0\nlistening_ip=lan0\nipv6_disable=yes\nsecure_mode=yes\n"
        f"enable_upnp={_word(upnp)}\nenable_natpmp={_word(natpmp)}\n"
        "uuid=2f0e1c5a-0000-4000-8000-000000000000\n"
        f"allow 1024-65535 {INSIDE} 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
    )
    program = shutil.which("miniupnpd", path=PATH)
    assert program is not None
    argv = [program, "-d", "-f", str(config), "-P", str(directory / "miniupnpd.pid")]
    with (directory / "miniupnpd.log").open("wb") as log:
        return router.popen(argv, stdout=log, stderr=log)


def _word(on: bool) -> str:
    return "yes" if on else "no"
