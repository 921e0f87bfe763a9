"""Where a tracker may be: whoever wrote a link named it, and it may send us on.

A stranger must not be able to have this node ask things of the machine it runs on,
or of its network, that only look like an announce (server-side request forgery).
"""

from __future__ import annotations

from furymesh.core.errors import UnavailableError
from furymesh.core.link import Tracker
from furymesh.net.addresses import is_public, may_lead


def check_place(tracker: Tracker, ip: str) -> None:
    """Refuse a tracker on a private network that does not look like one.

    What answers at /announce there is a tracker; what takes a query may be a printer.
    """
    if not is_public(ip) and ("?" in tracker.path or not tracker.path.endswith("/announce")):
        raise UnavailableError("a tracker on a private network has a URL that ends in /announce")


def check_redirect(tracker: Tracker, ip: str, first: str) -> None:
    """Refuse to be led from the internet into a private network, or onto this machine.

    Within a private network, only to what looks like a tracker: its query is ours.
    """
    path = tracker.path.partition("?")[0]
    if not may_lead(ip, first):
        raise UnavailableError("it redirects to a private address")
    if not is_public(ip) and not path.endswith("/announce"):
        raise UnavailableError("it redirects to what does not look like a tracker")
