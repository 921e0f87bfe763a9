"""Reading the YAML of a configuration file, and saying where it is wrong.

Plain YAML only: no tags, no anchors and aliases (a few lines of them can stand
for gigabytes), no key twice. Each key's line is kept for the messages.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from furymesh.core.errors import ConfigError
from furymesh.core.paths import shown

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

MAX_CONFIG_BYTES = 1024 * 1024  # a thousand times the size of a long one
MAX_PROBLEMS = 8  # named in one message; who has more has another kind of file

KeyPath = tuple[str | int, ...]

# What to write where pydantic's own words would speak of types.
_ADVICE = {
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list, one entry a line after a dash",
    "model_type": "must be a section with keys of its own",
    "model_attributes_type": "must be a section with keys of its own",
    "dict_type": "must be a section with keys of its own",
}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says: plain values, and the line (from 1) of each key."""

    path: Path | None
    values: dict[str, Any]
    lines: dict[KeyPath, int]


class _PlainLoader(yaml.SafeLoader):
    """yaml.SafeLoader without aliases and without tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not supported; write the value out"
        elif getattr(event, "tag", None) is not None:
            problem = f"tags like {event.tag} are not supported; leave it out"
        if problem is not None:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def read_config_file(path: Path) -> ConfigFile:
    """Read and parse `path`; raises ConfigError."""
    raw = _read(path)
    try:
        values, lines = _parse(raw)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        problem = error.problem or "not valid YAML"
        if "'\\t'" in problem:
            problem = "a tab: indent with spaces"
        elif isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError):
            problem = f"not valid YAML: {problem}"
        raise ConfigError(f"{shown(str(path))}{where}: {shown(problem)}") from None
    except yaml.reader.ReaderError:
        raise ConfigError(f"{shown(str(path))} is not a text file: save it as UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{shown(str(path))} is nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{shown(str(path))} is not valid: {shown(str(error)[:200])}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{shown(str(path))}: expected keys and values, like `node:`")
    return ConfigFile(path, _without_empty_sections(values), lines)


def describe(file: ConfigFile, error: ValidationError, model: type[BaseModel]) -> str:
    """One line that names every bad key of `file` and what to write instead."""
    details = error.errors(include_url=False, include_context=True, include_input=False)
    problems = sorted(
        {(_line_of(file, tuple(item["loc"])), _problem(item, model)) for item in details}
    )
    told = [f"line {line}: {text}" if line else text for line, text in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        told.append(f"and {len(problems) - MAX_PROBLEMS} more")
    where = shown(str(file.path)) if file.path else "configuration"
    return f"{where}: {'; '.join(told)}"


def _problem(item: ErrorDetails, model: type[BaseModel]) -> str:
    loc = tuple(item["loc"])
    key = shown(".".join(str(part) for part in loc))
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"unknown key {key} ({advice if known else 'this section has no keys yet'})"
    context = item.get("ctx", {})
    if kind == "value_error":
        return f"{key}: {shown(str(context.get('error', item['msg'])))}"
    if kind == "literal_error":
        return f"{key} must be {context.get('expected')}"
    if kind == "greater_than_equal":
        return f"{key} must be at least {context.get('ge')}"
    if kind == "less_than_equal":
        return f"{key} must be at most {context.get('le'):g}"
    if kind == "too_long":
        return f"{key} has more than {context.get('max_length')} entries"
    return f"{key} {_ADVICE.get(kind, 'is not valid: ' + shown(item['msg']))}"


def _known_keys(model: type[BaseModel], section: KeyPath) -> list[str]:
    for part in section:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        model = inner
    return list(model.model_fields)


def _line_of(file: ConfigFile, loc: KeyPath) -> int:
    while loc and loc not in file.lines:
        loc = loc[:-1]
    return file.lines.get(loc, 0)


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: a pipe put there must not make the command wait.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{shown(str(path))} is not a file: name a YAML file")
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "not a usable path").lower()
        raise ConfigError(f"cannot read the configuration {shown(str(path))}: {reason}") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{shown(str(path))} is larger than 1 MiB: this is not a configuration")
    return raw


def _parse(raw: bytes) -> tuple[Any, dict[KeyPath, int]]:
    loader = _PlainLoader(raw)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}, {}
        lines = dict(_lines(root))
        return loader.construct_document(root), lines
    finally:
        loader.dispose()


def _lines(node: yaml.Node, at: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be a plain word", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {shown(key.value)} is given twice; keep one of them",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
            yield (*at, key.value), key.start_mark.line + 1
            yield from _lines(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*at, index), value.start_mark.line + 1
            yield from _lines(value, (*at, index))


def _without_empty_sections(values: dict[Any, Any]) -> dict[str, Any]:
    """The values, less the sections whose keys are all commented out."""
    kept = {str(key): value for key, value in values.items() if value is not None}
    discovery = kept.get("discovery")
    if isinstance(discovery, dict):
        kept["discovery"] = {
            key: value
            for key, value in discovery.items()
            if value is not None or key not in ("lan", "dht", "peers")
        }
    return kept
