"""Run the furymesh command line after a line arrives on standard input.

`python gate.py get LINK --json …` starts the interpreter, imports what a transfer
needs, prints {"event": "ready"} and waits. The command that then runs is the real
one; only the interpreter start is taken off the clock.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import runpy
import sys
from contextlib import suppress
from pathlib import Path

LAYERS = ("core", "wire", "storage", "net", "sources", "discovery", "swarm", "sync", "node", "cli")
OPTIONAL = ("dht", "__main__")  # an extra nobody asked for here; running is not importing


def preload() -> None:
    """Import the layers a transfer uses; what cannot be imported is left to the command."""
    for layer in LAYERS:
        with suppress(ImportError):
            package = importlib.import_module(f"furymesh.{layer}")
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not any(word in module.name for word in OPTIONAL):
                    with suppress(ImportError):
                        importlib.import_module(module.name)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    preload()
    print(json.dumps({"event": "ready"}), flush=True)
    if not sys.stdin.readline():
        return
    sys.argv[0] = "furymesh"
    runpy.run_module("furymesh", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
