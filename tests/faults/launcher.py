"""Runs furymesh commands as forks of a process that has everything imported.

A script: it reads orders, a JSON object a line, and answers each by a line.
`start` forks a command with a disk fault armed and answers its process id;
`wait` answers how it ended and how many disk calls were counted. Only one
command at a time may have a fault armed, for they share the counter.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import sys
from typing import Any

import furymesh.cli
from furymesh.cli.main import main
from furymesh.node import face, service

__all__ = ["face", "service"]  # imported here, so that no fork has to


def command(order: dict[str, Any], library: ctypes.CDLL | None) -> int:
    """In the fork: everything that a fresh process would do."""
    os.chdir(order["cwd"])
    for number, place in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        fd = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(fd, number)
        os.close(fd)
    if library is not None and order["fault"] is not None:
        one, other, kinds, number, outcome = order["fault"]
        library.disk_faults_arm(one.encode(), other.encode(), kinds, number, outcome)
    code = main(order["argv"])
    sys.stdout.flush()
    return code


def serve() -> None:
    library = ctypes.CDLL(None) if "LD_PRELOAD" in os.environ else None
    if library is not None:
        library.disk_faults_arm.argtypes = (
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_long,
            ctypes.c_int,
        )
        library.disk_faults_count.restype = ctypes.c_long
    for module in pkgutil.iter_modules(furymesh.cli.__path__, "furymesh.cli."):
        importlib.import_module(module.name)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any]
        if order["order"] == "start":
            pid = os.fork()
            if pid == 0:
                code = 99
                try:
                    code = command(order, library)
                finally:
                    os._exit(code)
            answer = {"pid": pid}
        else:
            _, status = os.waitpid(order["pid"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "calls": 0, "hit": 0}
            if library is not None:
                answer["calls"] = library.disk_faults_count()
                answer["hit"] = library.disk_faults_hit()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
