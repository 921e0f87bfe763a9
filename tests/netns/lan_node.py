"""Only the local discovery of a node, for labs with many: `lan_node.py TAG PORT`.

It takes part in one share and wants it, and tells of every other one it finds.
"""

from __future__ import annotations

import json
import os
import sys
from random import SystemRandom

import trio

from furymesh.core.ids import DiscoveryTag, NodeId
from furymesh.discovery.lan import Lan
from furymesh.discovery.source import Interests, Sighting


async def main(tag: DiscoveryTag, port: int) -> None:
    found: set[str] = set()

    def tell(sighting: Sighting) -> None:
        if str(sighting.address) not in found:
            found.add(str(sighting.address))
            print(json.dumps({"event": "found", "count": len(found)}), flush=True)

    interests = Interests(port)
    source = Lan(NodeId(os.urandom(32)), os.urandom(8), ["0.0.0.0"], SystemRandom())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run, interests, tell)
        interests.add(tag, wanted=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, DiscoveryTag(bytes.fromhex(sys.argv[1])), int(sys.argv[2]))
