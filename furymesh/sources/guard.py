"""Which addresses a mirror may have: whoever wrote a link named it, and it may send us on.

A stranger must not be able to have this machine ask things of itself or of its
network (server-side request forgery). So a name is resolved here, and who connects
uses what came of it: a second look could give another answer.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from furymesh.core.link import Address, Mirror
from furymesh.net.addresses import is_public, may_lead
from furymesh.net.resolving import resolved
from furymesh.sources.source import UnfitMirrorError

MAX_PLACES = 16  # hosts that redirects led to and whose addresses are kept


class Guard:
    """The addresses of one mirror and of where it redirects to.

    One that the user named himself (`own`) may be anywhere; of others only public
    addresses are used, unless `private` ones are allowed to all. A redirect never
    leads from the internet into a private network, or from another machine onto
    this one, unless that is allowed.
    """

    def __init__(self, mirror: Mirror, *, own: bool, private: bool) -> None:
        self._home = mirror.address
        self._own = own
        self._private = private
        self._threads = trio.CapacityLimiter(1)
        self._first = ""  # the address of the mirror itself
        self._places: OrderedDict[Address, list[str]] = OrderedDict()

    async def ip(self, where: Address) -> str:
        """The IP address to connect to; raises UnfitMirrorError, UnavailableError."""
        if where not in self._places:
            self._places[where] = await self._allowed(where)
            if len(self._places) > MAX_PLACES:
                self._places.popitem(last=False)
        return self._places[where][0]

    def failed(self, where: Address) -> None:
        """Nobody answers there: the next address is used, after the last all are looked up."""
        if len(self._places.get(where, ())) > 1:
            del self._places[where][0]
        else:
            self._places.pop(where, None)

    async def _allowed(self, where: Address) -> list[str]:
        found = await resolved(where, self._threads)
        home = where == self._home
        if not self._private:
            found = [ip for ip in found if self._own or is_public(ip)]
            if not home:
                found = [ip for ip in found if may_lead(ip, self._first)]
        if not found:
            raise UnfitMirrorError(
                "it is at a private address; name it with --mirror if that is meant"
                if home
                else "it redirects to a private address"
            )
        if home:
            self._first = found[0]
        return found
