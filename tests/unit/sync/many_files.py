"""A process of its own that looks through two folders of many files and compares them.

    python -m tests.unit.sync.many_files ARCHIVE SERVED DATA [first]

Prints seconds, those of processor time too, and megabytes of memory that it needed
for that, as JSON. The `first` time everything is hashed, and the hashes are kept.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from furymesh.sync.archive import Archive
from furymesh.sync.compare import Comparison
from furymesh.sync.folder import Folder
from furymesh.sync.holdings import Holdings


def compare(archive: Path, served: Path, data: Path, *, first: bool) -> dict[str, float]:
    """One comparison, of an archive with what is served."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures: dict[str, float] = {}
    started, cpu = time.perf_counter(), time.process_time()
    with Archive(archive, data / "client") as client:
        held = Holdings(Folder(served, distinct_parts=True), data / "server")
        comparison = Comparison(held, mirror=True)
        done: Counter[str] = Counter()
        for page in client.pages():
            if first:
                page = client.hash([info.path for info in page])
                held.hash(comparison.unhashed(page))
            done.update(task.do.value for task in comparison.decide(page))
        removals = comparison.removals()
        figures |= {"removals": len(removals), **done}
        held.save()
    figures["cpu"] = time.process_time() - cpu
    figures["seconds"] = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return figures | {"megabytes": (after - before) / 1024}


if __name__ == "__main__":
    paths = [Path(arg) for arg in sys.argv[1:4]]
    print(json.dumps(compare(*paths, first="first" in sys.argv)))
