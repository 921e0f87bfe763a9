"""What a download shows: events in, lines and JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from furymesh.cli.progress import BytesMeter, Lines
from furymesh.cli.transfer import TransferView, progress_facts, summary, tried_text
from furymesh.core.ids import FileId, NodeId, node_id_text
from furymesh.swarm.events import (
    Attempt,
    Checking,
    Connected,
    Note,
    PeerContribution,
    Progress,
    Result,
    Started,
    Trouble,
    Waiting,
)

FILE_ID = FileId(bytes(32))
NODE_ID = NodeId(bytes(range(32)))


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.shown: list[tuple[Any, ...]] = []
        self.lines: list[str] = []

    def show(self, activity: str, done: float, total: float, facts: Sequence[str]) -> None:
        self.shown.append((activity, done, total, *facts))

    def line(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        pass


def started(done: int = 13, *, resumed: bool = True) -> Started:
    return Started(FILE_ID, "file.txt", 20 << 18, 20, done, Path("/d/file.part"), resumed)


def result(path: Path, **changes: Any) -> Result:
    peer = PeerContribution(NODE_ID, "192.0.2.7:7654", 7 << 18, 7, "lan")
    values: dict[str, Any] = {
        "file_id": FILE_ID,
        "path": path,
        "size": 20 << 18,
        "seconds": 2.0,
        "bytes_fetched": 7 << 18,
        "bytes_reused": 13 << 18,
        "bytes_wasted": 0,
        "peers": (peer,),
    }
    return Result(**{**values, **changes})


def view(*, json: bool = False, verbose: bool = False, announce: bool = False) -> TransferView:
    return TransferView(Recorder(), json=json, verbose=verbose, announce=announce)


def test_resume_prints_the_documented_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown = view()
    shown.on_event(started())
    shown.on_complete(result(Path("/path/to/file.txt")))
    assert capsys.readouterr().out.splitlines()[:4] == [
        "Found resume data: 13/20 chunks already downloaded (65%)",
        "Requesting remaining 7 chunks...",
        "Progress: [====================] 100% Complete",
        "File saved to /path/to/file.txt",
    ]


def test_a_fresh_download_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    view(announce=True).on_event(started(0, resumed=False))
    assert capsys.readouterr().out == "Downloading file.txt (5.2 MB, 20 chunks)\n"


def test_one_chunk_and_none_left(capsys: pytest.CaptureFixture[str]) -> None:
    view().on_event(started(19))
    view().on_event(started(20))
    out = capsys.readouterr().out
    assert out.count("Requesting") == 1
    assert "Requesting remaining 1 chunk...\n" in out


def test_json_has_the_documented_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = view(json=True, announce=True)
    shown.on_event(started())
    shown.on_event(Progress(14, 20, 14 << 18, 20 << 18, 1234.5, 3))
    shown.on_event(Note("a peer left"))
    shown.on_event(Waiting(3, 60, ()))
    shown.on_event(Checking(3, 20, final=True))
    shown.on_complete(result(tmp_path / "x"))
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["event"] for record in records] == ["started", "progress", "complete"]
    assert records[0].keys() >= {"file_id", "size", "chunks_total", "chunks_done"}
    assert records[1] == {
        "event": "progress",
        "chunks_done": 14,
        "bytes_done": 14 << 18,
        "rate": 1234,
        "peers": 3,
    }
    assert records[2]["path"] == str(tmp_path / "x")
    assert records[2]["bytes_fetched"] == 7 << 18
    assert records[2]["bytes_reused"] == 13 << 18
    assert records[2]["bytes_wasted"] == 0
    assert records[2]["seconds"] == 2.0
    assert records[2]["peers"] == [
        {
            "node_id": node_id_text(NODE_ID),
            "address": "192.0.2.7:7654",
            "bytes": 7 << 18,
            "chunks": 7,
            "found": "lan",
        }
    ]


def test_hostile_names_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;x\x07\u202e"
    shown = view(announce=True)
    shown.on_event(Started(FILE_ID, evil, 1, 1, 0, Path("/p"), False))
    shown.on_complete(result(Path("/d") / evil))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_folder_and_a_sealed_share_say_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    view().on_complete(result(tmp_path, sealed=True))
    captured = capsys.readouterr()
    assert f"Folder saved to {tmp_path}" in captured.out
    assert captured.err.startswith("furymesh: the share is encrypted")


def test_verbose_names_each_peer(capsys: pytest.CaptureFixture[str]) -> None:
    view(verbose=True).on_complete(result(Path("/x")))
    assert "  7 chunks, 1.8 MB from 192.0.2.7:7654 (lan, node " in capsys.readouterr().out


def test_waiting_is_explained_once_and_shown_on() -> None:
    display = Recorder()
    shown = TransferView(display, json=False, verbose=False, announce=False)
    refused = (Attempt("192.0.2.7:1", "connection refused"),)
    for seconds in (3, 6):
        shown.on_event(Waiting(seconds, 60, refused))
    assert display.lines == ["No peer has it yet; tried 192.0.2.7:1 (connection refused)"]
    assert [entry[0] for entry in display.shown] == ["Waiting for a peer"] * 2
    # Nobody is connected: a standstill is not shown in place of the wait.
    shown.on_event(Progress(1, 20, 1 << 18, 20 << 18, 0.0, 0))
    assert len(display.shown) == 2


def test_tried_addresses_are_limited() -> None:
    tried = tuple(Attempt(f"192.0.2.{n}:1", "timed out\x1b") for n in range(9))
    text = tried_text(Waiting(1, 2, tried), 3)
    assert text.endswith(", 6 more")
    assert "\\x1b" in text
    assert "--peer" in tried_text(Waiting(1, 2, ()), 3)


def test_where_nobody_was_found_is_said() -> None:
    text = tried_text(Waiting(1, 2, (), "on the local network"), 3)
    assert text == "nobody answered on the local network; --peer names one elsewhere"


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_tells_what_is_wrong_with_a_way_to_find_peers(verbose: bool) -> None:
    display = Recorder()
    shown = TransferView(display, json=False, verbose=verbose, announce=False)
    shown.on_event(Trouble("tracker udp://t.example:1: no such host"))
    assert display.lines == ["tracker udp://t.example:1: no such host"] * verbose


def test_verbose_tells_of_each_connection_and_how_it_was_found() -> None:
    for verbose in (False, True):
        display = Recorder()
        shown = TransferView(display, json=False, verbose=verbose, announce=False)
        shown.on_event(Connected(NODE_ID, "192.0.2.7:7654", "lan"))
        node = node_id_text(NODE_ID)[:16]
        expected = f"Connected to 192.0.2.7:7654 (lan, node {node})"
        assert display.lines == ([expected] if verbose else [])


def test_a_mirror_is_shown_as_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://m.example/file.txt"
    done = result(tmp_path / "f", peers=(PeerContribution(None, url, 1 << 18, 1, "mirror"),))
    display = Recorder()
    told = TransferView(display, json=False, verbose=True, announce=False)
    told.on_event(Connected(None, url, "mirror"))
    assert display.lines == [f"Connected to {url} (mirror)"]
    told.on_complete(done)
    assert capsys.readouterr().out.endswith(f"  1 chunk, 262.1 kB from {url} (mirror)\n")
    TransferView(display, json=True, verbose=False, announce=False).on_complete(done)
    (peer,) = json.loads(capsys.readouterr().out)["peers"]
    assert (peer["node_id"], peer["address"], peer["found"]) == (None, url, "mirror")


def test_the_facts_leave_room_for_a_bar_in_80_columns() -> None:
    event = Progress(262_143, 262_144, 1 << 39, (1 << 40), 999_900_000.0, 120)
    assert len("  ".join(progress_facts(event))) <= 80 - len("Progress ") - 10
    assert not any("left" in fact for fact in progress_facts(Progress(1, 9, 1, 9, 0.0, 1)))


def test_summary() -> None:
    text = summary(result(Path("/x"), bytes_wasted=1 << 18))
    assert text == (
        "5.2 MB in 2.0s (917.5 kB/s): 1.8 MB from 1 peer, 3.4 MB were here already, 262.1 kB wasted"
    )
    assert summary(result(Path("/x"), size=0, bytes_fetched=0, bytes_reused=0)) == "0 B in 2.0s"


def test_lines_come_at_a_sensible_pace(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = Lines(clock=lambda: now)
    for second in range(600):
        now = float(second)
        lines.show("Progress", second // 6, 100, [f"{second // 6}%"])
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Progress: 0%"
    assert told[1] == "Progress: 5%"
    assert len(told) == 20
    lines.show("Progress", 99, 100, ["99%"])
    assert capsys.readouterr().err == ""
    now += 60
    lines.show("Progress", 99, 100, ["99%"])
    assert capsys.readouterr().err == "Progress: 99%\n"


def test_the_meter_tells_rate_and_time_left() -> None:
    now = 0.0
    display = Recorder()
    meter = BytesMeter(display, "Hashing \x1b", clock=lambda: now)
    meter(0, 0)
    now = 2.0
    meter(1_000_000, 3_000_000)
    assert display.shown == [
        ("Hashing \\x1b", 0, 0, "100%", "0 B of 0 B"),
        ("Hashing \\x1b", 1e6, 3e6, "33%", "1.0 MB of 3.0 MB", "500.0 kB/s", "4.0s left"),
    ]
