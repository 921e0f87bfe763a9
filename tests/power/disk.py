"""A disk that may lose its power: what was asked of it, and what it may then hold.

The model knows no more than POSIX promises. A write or truncation is safe once a
sync of its file that began later has ended; a name that was made, moved or
removed is safe once a sync of its directory has; until then each of them may be
lost or kept, whatever happens to the others. A rename happens whole or not at
all. Only what one write did may be torn, at a sector or a page.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.power.trace import Call

SECTOR, PAGE = 512, 4096
ROOT = 0

Names = dict[str, int]  # of one directory: which node has them


@dataclass(frozen=True, slots=True)
class Write:
    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    node: int
    size: int


@dataclass(frozen=True, slots=True)
class Rename:
    """Names that change at once: (directory, name, node or None); also of one alone."""

    changes: tuple[tuple[int, str, int | None], ...]


Effect = Write | Truncate | Rename


@dataclass(frozen=True, slots=True)
class Operation:
    """Something asked of the disk, and from when on it is safe (an end of a call)."""

    call: str
    end: int
    effect: Effect
    safe_from: float = float("inf")

    @property
    def nodes(self) -> frozenset[int]:
        """A sync of any of these makes it safe."""
        if isinstance(self.effect, Rename):
            return frozenset(directory for directory, _, _ in self.effect.changes)
        return frozenset({self.effect.node})


@dataclass(slots=True)
class Contents:
    """Files and directories, by number."""

    files: dict[int, bytearray] = field(default_factory=dict)
    directories: dict[int, Names] = field(default_factory=lambda: {ROOT: {}})

    def copy(self) -> Contents:
        return Contents(
            {node: bytearray(data) for node, data in self.files.items()},
            {node: dict(names) for node, names in self.directories.items()},
        )

    def apply(self, effect: Effect) -> None:
        match effect:
            case Write(node, offset, data):
                file = self.files[node]
                file.extend(bytes(max(0, offset - len(file))))
                file[offset : offset + len(data)] = data
            case Truncate(node, size):
                file = self.files[node]
                file.extend(bytes(max(0, size - len(file))))
                del file[size:]
            case Rename(changes):
                for directory, name, target in changes:
                    if target is None:
                        self.directories[directory].pop(name, None)
                    else:
                        self.directories[directory][name] = target

    def find(self, components: Iterable[str]) -> int | None:
        node = ROOT
        for name in components:
            if name not in self.directories.get(node, {}):
                return None
            node = self.directories[node][name]
        return node

    def walk(self, node: int = ROOT, at: str = "") -> Iterator[tuple[str, int, bytes | None]]:
        """Every path that has a name, its node and its content (None: a directory)."""
        for name, below in sorted(self.directories[node].items()):
            path = f"{at}/{name}" if at else name
            if below in self.files:
                yield path, below, bytes(self.files[below])
            else:
                yield path, below, None
                yield from self.walk(below, path)


class Recording:
    """A sequence of operations on the directories below `root`, from a trace."""

    def __init__(self, root: Path, calls: Iterable[Call]) -> None:
        """`root` was empty, and safe, when the calls began."""
        self.root = root
        self.operations: list[Operation] = []
        self._moments = [0]  # ends of operations and of syncs
        self._now = Contents()
        self._base = Contents()  # every node that was ever made, without content or name
        self._nodes = ROOT
        self._positions: dict[int, int] = {}  # of descriptors
        for call in calls:
            self._take(call)

    # --- states -------------------------------------------------------------------

    def everything(self) -> Contents:
        """What a disk holds that has lost nothing."""
        return self._now

    def states(self) -> Iterator[tuple[str, Contents]]:
        """Every state a power cut may leave, each with its name; some are alike.

        After every operation and every sync: all that is not safe yet is kept, or
        lost, or just one of it is lost, or just one is kept, or is torn.
        """
        for moment in self._moments:
            done = [operation for operation in self.operations if operation.end <= moment]
            unsafe = [n for n, operation in enumerate(done) if operation.safe_from > moment]
            yield f"{moment}, all kept", self._made_of(done, {})
            yield f"{moment}, unsynced lost", self._made_of(done, dict.fromkeys(unsafe))
            for one in unsafe:
                what = f"{one} ({done[one].call})"
                yield f"{moment}, lost {what}", self._made_of(done, {one: None})
                others = {n: None for n in unsafe if n != one}
                yield f"{moment}, kept only {what}", self._made_of(done, others)
                for size in (SECTOR, PAGE):
                    for part, torn in enumerate(_torn(done[one].effect, size)):
                        made = self._made_of(done, {one: torn})
                        yield f"{moment}, torn {what} at {size}, part {part}", made

    def _made_of(self, done: list[Operation], instead: Mapping[int, Effect | None]) -> Contents:
        made = self._base.copy()
        for number, operation in enumerate(done):
            effect = instead.get(number, operation.effect)
            if effect is not None:
                made.apply(effect)
        return made

    # --- recording ----------------------------------------------------------------

    def _take(self, call: Call) -> None:
        match call.name:
            case "openat":
                self._open(call)
            case "mkdir":
                self._make_directory(call, call.path(0))
            case "mkdirat":
                self._make_directory(call, call.path(1, at=0))
            case "lseek":
                self._positions[call.descriptor(0)] = call.result
            case "write":
                position = self._positions.get(call.descriptor(0), 0)
                self._positions[call.descriptor(0)] = position + call.result
                self._write(call, position)
            case "pwrite64":
                self._write(call, call.number(3))
            case "ftruncate":
                self._add(call, Truncate(self._file(call.opened(0)), call.number(1)))
            case "fsync" | "fdatasync":
                self._sync(call)
            case "syncfs":
                self._sync_all(call)
            case "rename":
                self._rename(call, call.path(0), call.path(1))
            case "renameat":
                self._rename(call, call.path(1, at=0), call.path(3, at=2))
            case "renameat2":
                assert call.arguments[4] in ("RENAME_NOREPLACE", "RENAME_EXCHANGE")
                exchange = call.arguments[4] == "RENAME_EXCHANGE"
                self._rename(call, call.path(1, at=0), call.path(3, at=2), exchange=exchange)
            case "unlink" | "rmdir":
                self._remove(call, call.path(0))
            case "unlinkat":
                self._remove(call, call.path(1, at=0))
            case "link":
                self._link(call, call.path(0), call.path(1))
            case _:
                raise AssertionError(f"the model knows no {call.name}: {call.arguments}")

    def _open(self, call: Call) -> None:
        path = call.path(1, at=0)
        flags = call.arguments[2].split("|")
        assert "O_APPEND" not in flags, path
        self._positions[call.result] = 0
        if not self._inside(path):
            return
        node = self._node(path)
        if node is None:
            assert "O_CREAT" in flags, path
            self._nodes += 1
            self._base.files[self._nodes] = bytearray()
            self._now.files[self._nodes] = bytearray()
            self._name(call, path, self._nodes)
        elif "O_TRUNC" in flags and self._now.files.get(node):
            self._add(call, Truncate(node, 0))

    def _make_directory(self, call: Call, path: Path) -> None:
        self._nodes += 1
        self._base.directories[self._nodes] = {}
        self._now.directories[self._nodes] = {}
        self._name(call, path, self._nodes)

    def _write(self, call: Call, offset: int) -> None:
        path = call.opened(0)
        if self._inside(path):  # and not a pipe, nor a file that was deleted
            self._add(call, Write(self._file(path), offset, call.data(1)[: call.result]))

    def _rename(self, call: Call, source: Path, target: Path, *, exchange: bool = False) -> None:
        (here, old), (there, new) = self._place(source), self._place(target)
        node = self._now.directories[here][old]
        left = self._now.directories[there][new] if exchange else None
        self._add(call, Rename(((here, old, left), (there, new, node))))

    def _link(self, call: Call, source: Path, target: Path) -> None:
        node = self._node(source)
        assert node is not None
        self._name(call, target, node)

    def _remove(self, call: Call, path: Path) -> None:
        directory, name = self._place(path)
        self._add(call, Rename(((directory, name, None),)))

    def _name(self, call: Call, path: Path, node: int) -> None:
        directory, name = self._place(path)
        self._add(call, Rename(((directory, name, node),)))

    def _add(self, call: Call, effect: Effect) -> None:
        self.operations.append(Operation(call.name, call.end, effect))
        self._moments.append(call.end)
        self._now.apply(effect)

    def _sync(self, call: Call) -> None:
        path = call.opened(0)
        if not self._inside(path):
            return
        node = self._node(path)
        assert node is not None, path
        self._make_safe(call, lambda operation: node in operation.nodes)

    def _sync_all(self, call: Call) -> None:
        self._make_safe(call, lambda _: True)

    def _make_safe(self, call: Call, concerned: Callable[[Operation], bool]) -> None:
        self._moments.append(call.end)
        for number, operation in enumerate(self.operations):
            covered = operation.end < call.begin and concerned(operation)
            if covered and operation.safe_from > call.end:
                self.operations[number] = replace(operation, safe_from=call.end)

    # --- paths --------------------------------------------------------------------

    def _inside(self, path: Path) -> bool:
        return path.is_relative_to(self.root)

    def _node(self, path: Path) -> int | None:
        return self._now.find(path.relative_to(self.root).parts)

    def _file(self, path: Path) -> int:
        node = self._node(path)
        assert node is not None, path
        assert node in self._now.files, path
        return node

    def _place(self, path: Path) -> tuple[int, str]:
        directory = self._node(path.parent)
        assert directory is not None, path
        return directory, path.name


def _torn(effect: Effect, size: int) -> Iterator[Effect]:
    """What may be left of a write that the power cut at a boundary: its head, or its tail."""
    if not isinstance(effect, Write):
        return
    end = effect.offset + len(effect.data)
    boundaries = range(effect.offset - effect.offset % size + size, end, size)
    if boundaries:
        middle = boundaries[len(boundaries) // 2] - effect.offset
        yield replace(effect, data=effect.data[:middle])
        yield replace(effect, offset=effect.offset + middle, data=effect.data[middle:])


def on_disk(root: Path) -> dict[str, bytes | None]:
    """Every path below `root` with its content (None: a directory)."""
    found: dict[str, bytes | None] = {}
    for at, directories, files in os.walk(root):
        for name in directories:
            found[os.path.relpath(os.path.join(at, name), root)] = None
        for name in files:
            path = Path(at, name)
            found[os.path.relpath(path, root)] = path.read_bytes()
    return found
