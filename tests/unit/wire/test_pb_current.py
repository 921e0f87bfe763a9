"""The committed protobuf code is what the compiler makes of proto/furymesh.proto."""

from __future__ import annotations

import re
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import pytest

from furymesh.wire import messages as m
from furymesh.wire.pb import furymesh_pb2 as pb

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "furymesh" / "wire" / "pb"


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'proto'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(ROOT / "proto" / "furymesh.proto"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in COMMITTED.glob("furymesh_pb2.*")}
    assert set(made) == {"furymesh_pb2.py", "furymesh_pb2.pyi"} == set(committed)
    for name, text in made.items():
        assert text == committed[name], f"{name} is not current: run `make proto`"


def test_reasons_are_numbered_as_in_the_definition() -> None:
    assert {f"REASON_{reason.name}": reason.value for reason in m.Reason} == dict(pb.Reason.items())
    assert issubclass(m.Reason, IntEnum)


@pytest.mark.parametrize(
    "field", list(pb.Frame.DESCRIPTOR.fields), ids=lambda field: str(field.name)
)
def test_messages_mirror_the_definition(field: object) -> None:
    descriptor = field.message_type  # type: ignore[attr-defined]
    ours = getattr(m, descriptor.name)
    assert set(ours.__dataclass_fields__) == set(descriptor.fields_by_name)


def test_no_number_is_used_twice_or_skipped() -> None:
    """A gap would be a message that was taken out; its number must stay reserved."""
    text = (ROOT / "proto" / "furymesh.proto").read_text(encoding="utf-8")
    for block in re.findall(r"(?:message|oneof) \w+ \{([^{}]*)\}", text):
        numbers = [int(number) for number in re.findall(r"= (\d+);", block)]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
