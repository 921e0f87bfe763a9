"""Writes the inputs that fuzzing starts from, `tests/fuzz/corpus/<target>/<name>`.

Run ``python -m tests.fuzz.make_corpus`` after a deliberate change of a format.
Inputs that once crashed a target are kept beside them, as `crash-<what>`, and
are left alone.
"""

from __future__ import annotations

from tests.fuzz.engine import CORPUS
from tests.fuzz.targets import TARGETS


def main() -> None:
    for target in TARGETS.values():
        directory = CORPUS / target.name
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in target.seeds().items():
            (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
