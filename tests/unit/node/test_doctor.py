"""What is found wrong with a machine, and what is advised."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from furymesh.core.ids import node_id_text
from furymesh.net.addresses import is_loopback
from furymesh.net.identity import load_or_create
from furymesh.net.interfaces import interfaces
from furymesh.net.multicast import Multicast
from furymesh.node import doctor
from furymesh.node.doctor import Finding, Verdict, examine
from tests.apart import ALONE, apart
from tests.tracker_server import TestTracker, open_tracker


async def findings(data_dir: Path, **sections: Any) -> dict[str, Finding]:
    config = apart({"data_dir": data_dir, "node": {"listen": "127.0.0.1:0"}, **sections})
    return {finding.what: finding async for finding in examine(config)}


async def test_where_all_is_well_it_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    load_or_create(data)
    found = await findings(data)
    verdicts = {what: finding.verdict for what, finding in found.items()}
    assert verdicts == {
        "data directory": Verdict.OK,
        "identity": Verdict.OK,
        "clock": Verdict.OK,
        "downloads": Verdict.OK,
        "resume data": Verdict.OK,
        "port": Verdict.OK,
        "local network": Verdict.NOTE,
        "DHT": Verdict.NOTE,
        "router": Verdict.NOTE,
    }
    assert not (data / "doctor.probe").exists()


async def test_nothing_is_made(tmp_path: Path) -> None:
    found = await findings(tmp_path / "data")
    assert {found["data directory"].verdict, found["identity"].verdict} == {Verdict.NOTE}
    assert list(tmp_path.iterdir()) == []


async def test_a_data_directory_that_others_may_read_is_a_problem(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    data.chmod(0o755)
    found = (await findings(data))["data directory"]
    assert found.verdict is Verdict.PROBLEM
    assert found.advice == f"chmod 700 {data}"


async def test_a_data_directory_that_cannot_be_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")  # of the probe
    found = (await findings(tmp_path / "data"))["data directory"]
    assert (found.verdict, found.advice) == (Verdict.PROBLEM, "name another with --data-dir")


async def test_a_taken_port_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        found = (await findings(tmp_path, node={"listen": listen}))["port"]
    assert found.verdict is Verdict.PROBLEM
    assert listen in found.text


async def test_a_disk_without_the_reserve_is_a_problem(tmp_path: Path) -> None:
    found = await findings(tmp_path, storage={"reserve": "1000TB", "download_dir": tmp_path})
    assert found["downloads"].verdict is Verdict.PROBLEM
    assert "storage.reserve" in found["downloads"].advice


async def test_where_downloads_go_is_told_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (await findings(tmp_path))["downloads"].text.startswith(f"{tmp_path}, ")


async def test_files_of_the_future_tell_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    os.utime(kept, (4e9, 4e9))
    found = (await findings(tmp_path))["clock"]
    assert found.verdict is Verdict.NOTE
    assert "2096" in found.text


async def test_a_tracker_that_answers_and_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NETWORK_SECONDS", 2.0)
    dead = "http://127.0.0.1:9/announce"
    async with open_tracker(TestTracker()) as tracker:
        alive = tracker.url("udp")
        found = await findings(tmp_path, discovery={**ALONE, "trackers": [alive, dead]})
    verdicts = {what: one.verdict for what, one in found.items() if what.startswith("tracker")}
    assert sorted(verdicts.values()) == [Verdict.OK, Verdict.PROBLEM]
    assert found["tracker http://127.0.0.1:9"].verdict is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"discovery": {"port_mapping": False}}, "discovery.port_mapping"),
        ({"node": {"allow": [node_id_text(bytes(32))]}}, "private swarm"),
        ({}, "nothing here is behind one"),
    ],
)
async def test_a_router_is_asked_only_where_a_node_would_ask_it(
    tmp_path: Path, sections: dict[str, Any], why: str
) -> None:
    node = {"listen": "127.0.0.1:0", **sections.get("node", {})}
    discovery = {**ALONE, "port_mapping": None, **sections.get("discovery", {})}
    found = (await findings(tmp_path, node=node, discovery=discovery))["router"]
    assert found.verdict is Verdict.NOTE
    assert why in found.text


async def test_a_relay_that_is_nobody_is_a_problem(tmp_path: Path) -> None:
    nobody = f"{node_id_text(bytes(32))}@127.0.0.1:9"
    found = (await findings(tmp_path, discovery={**ALONE, "relays": [nobody]}))["relay 127.0.0.1:9"]
    assert found.verdict is Verdict.PROBLEM


async def test_multicast_that_comes_back_works_and_one_that_does_not_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"lan": {"enabled": True}, "dht": {"enabled": False}}
    found = (await findings(tmp_path, discovery=asked))["local network"]
    if all(is_loopback(interface.ipv4) for interface in interfaces()):
        assert found.verdict is Verdict.NOTE
        return
    assert found.verdict is Verdict.OK
    monkeypatch.setattr(Multicast, "ask", lambda self, raw: None)
    monkeypatch.setattr(doctor, "MULTICAST_SECONDS", 0.2)
    found = (await findings(tmp_path, discovery=asked))["local network"]
    assert found.verdict is Verdict.PROBLEM
    assert "firewall" in found.advice
