"""The examples of docs/sftp.md are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sftp.servers import KINDS, serving

DOCS = Path(__file__).parents[2] / "docs" / "sftp.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
EXPECTED = ("12000000 bytes sent", "in its place: 12000000 bytes", "b'the middle'")


@pytest.mark.parametrize(("code", "expected"), list(zip(EXAMPLES, EXPECTED, strict=True)))
def test_example_does_what_it_says(tmp_path: Path, code: str, expected: str) -> None:
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    (tmp_path / "srv").mkdir()
    with serving(KINDS[-1]) as server:
        (ssh / "known_hosts").write_text(server.known_hosts.read_text())
        (ssh / "config").write_text(
            f"Host backup\n  HostName 127.0.0.1\n  Port {server.port}\n"
            f"  User {server.username}\n  IdentityFile {server.key}\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code.replace("/srv/", f"{tmp_path}/srv/")],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
