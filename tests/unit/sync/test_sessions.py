"""Sessions of folder sync between a real server and real clients, in this process."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core.errors import (
    AlreadyRunningError,
    FuryMeshError,
    HandshakeError,
    LinkClosedError,
    NotFoundError,
    PeerError,
    UnavailableError,
    UsageError,
)
from furymesh.core.link import Address
from furymesh.net.connect import Endpoint
from furymesh.net.secure_link import SecureLink
from furymesh.sync import client as client_module
from furymesh.sync import entries as limits
from furymesh.sync import receiving, transfer_lock
from furymesh.sync import server as server_module
from furymesh.sync.events import (
    Begun,
    Came,
    ClientEvent,
    Comparing,
    Found,
    Gone,
    Lost,
    Note,
    Planned,
    Progress,
    Queued,
    Report,
    Synced,
)
from furymesh.sync.holdings import Holdings
from furymesh.sync.names import LOCK_NAME
from furymesh.wire import messages as m
from furymesh.wire.exchange import SYNC, Exchange
from furymesh.wire.sync_codec import DIGEST_SIZE
from tests.hostile.attacker import listening, new_identity
from tests.unit.sync.lab import RATE, TIMEOUT, Lab, announced, contents, tree
from tests.waiting import until

MIB = 1024 * 1024


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tree(tmp_path / "source", seed=1)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return (
        *(report.files, report.skipped, report.copied),
        *(report.removed, report.failed_count),
    )


# --- what travels ---------------------------------------------------------------------


async def test_the_first_sync_brings_everything_with_times_and_modes(
    lab: Lab, source: Path
) -> None:
    async with lab.server() as server:
        report = await lab.push(server, source)
    wanted = contents(source)
    assert contents(lab.archive / "laptop") == wanted
    empty = sum(not data for data, _, _ in wanted.values())
    # An empty file needs no bytes: the server makes it from what was announced.
    assert report.files + report.skipped == len(wanted)
    assert report.files >= len(wanted) - empty
    assert report.bytes_sent == sum(len(data) for data, _, _ in wanted.values())
    assert report.next_sync == RATE
    assert [event.text for event in server.of(Planned)] == ["Starting fresh transfer"]
    (synced,) = server.of(Synced)
    assert (synced.stored, synced.failed) == (len(wanted), 0)
    assert not (lab.archive / "laptop" / LOCK_NAME).exists()


async def test_what_is_unchanged_does_not_travel(lab: Lab, source: Path) -> None:
    async with lab.server() as server:
        await lab.push(server, source)
        report = await lab.push(server, source)
    assert report.bytes_sent == 0
    assert counts(report) == (0, len(contents(source)), 0, 0, 0)


async def test_of_one_changed_byte_only_its_file_travels(lab: Lab, source: Path) -> None:
    large = source / "large.bin"
    large.write_bytes(os.urandom(3 * MIB))
    async with lab.server() as server:
        await lab.push(server, source)
        with large.open("r+b") as file:
            file.seek(MIB)
            file.write(b"!")
        report = await lab.push(server, source)
    assert (report.files, report.bytes_sent) == (1, 3 * MIB)
    assert contents(lab.archive / "laptop") == contents(source)


async def test_what_only_has_another_time_or_mode_does_not_travel(lab: Lab, source: Path) -> None:
    touched = source / "touched.bin"
    touched.write_bytes(b"touched" * 1000)
    async with lab.server() as server:
        await lab.push(server, source)
        os.utime(touched, ns=(10**18, 10**18))
        touched.chmod(0o640)
        report = await lab.push(server, source)
    assert report.bytes_sent == 0
    assert contents(lab.archive / "laptop") == contents(source)


async def test_what_is_renamed_or_copied_is_copied_there(lab: Lab, source: Path) -> None:
    (source / "old.bin").write_bytes(os.urandom(2 * MIB))
    async with lab.server() as server:
        await lab.push(server, source)
        (source / "sub").mkdir(exist_ok=True)
        (source / "old.bin").rename(source / "sub" / "new.bin")
        report = await lab.push(server, source, mirror=True)
    assert report.bytes_sent == 0
    assert (report.files, report.copied, report.removed) == (0, 1, 1)
    assert contents(lab.archive / "laptop") == contents(source)


async def test_empty_folders_travel_and_go_in_a_mirror(lab: Lab, source: Path) -> None:
    def folders(root: Path) -> set[str]:
        return {
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_dir() and not path.relative_to(root).as_posix().startswith(".furymesh-")
        }

    for name in ("empty/in/empty", "other", "file-later", "emptied", "kept"):
        (source / name).mkdir(parents=True)
    (source / "emptied" / "file").write_bytes(b"only one")
    there = lab.archive / "laptop"
    async with lab.server() as server:
        report = await lab.push(server, source)
        files = len(contents(source))
        assert report.files + report.skipped == files
        assert folders(there) == folders(source)
        again = await lab.push(server, source)
        assert counts(again) == (0, files, 0, 0, 0)
        (source / "empty/in/empty").rmdir()
        (source / "other").rmdir()
        (source / "file-later").rmdir()
        (source / "file-later").write_bytes(b"a file now")
        (source / "emptied" / "file").unlink()
        (source / "kept").rmdir()
        report = await lab.push(server, source, mirror=True, excludes=("kept/",))
        assert (report.files, report.removed, report.failed_count) == (1, 1, 0)
        assert folders(there) == folders(source) | {"kept"}
        assert contents(there) == contents(source)
        # What the client lists is gone, and what is a file there is in the way.
        (there / "emptied").rmdir()
        (there / "emptied").write_bytes(b"")
        report = await lab.push(server, source)
        assert (report.failed_count, report.failed[0][0]) == (1, "emptied/")
        assert "is a file on the server" in report.failed[0][1]


@pytest.mark.parametrize("path", ["/", "../up/", "a//", ".furymesh-trash/", "/etc/", "a/../b/"])
async def test_folders_that_lead_elsewhere_are_refused(lab: Lab, path: str) -> None:
    async with lab.server() as server, lab.raw(server) as link:
        await link.begin("laptop")
        await link.say(announced((path, 0)))
        assert isinstance(await link.hear(), m.ArchiveFailed)
        assert await link.hear() == m.ArchiveTasks()
        assert await link.hear() == m.NextSync(RATE)
    assert not [path for path in (lab.archive / "laptop").rglob("*") if path.is_dir()]


async def test_what_is_excluded_stays_at_home(lab: Lab, source: Path) -> None:
    (source / "cache").mkdir()
    (source / "cache" / "x").write_bytes(b"x")
    (source / "a.tmp").write_bytes(b"x")
    async with lab.server() as server:
        await lab.push(server, source, excludes=("*.tmp", "cache/"))
    here, there = contents(source), contents(lab.archive / "laptop")
    assert here.keys() - there.keys() == {"a.tmp", "cache/x"}


async def test_very_many_files_go_through_the_windows(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(2500):
        (source / f"{number:05}").write_bytes(b"%d" % number)
    async with lab.server() as server:
        report = await lab.push(server, source)
    assert report.files == 2500
    assert contents(lab.archive / "laptop") == contents(source)


# --- mirrors --------------------------------------------------------------------------


async def test_a_mirror_moves_to_the_trash_what_is_gone(lab: Lab, source: Path) -> None:
    async with lab.server() as server:
        await lab.push(server, source)
        before = contents(source)
        gone = sorted(before)[:5]
        for name in gone:
            (source / name).unlink()
        kept = await lab.push(server, source)
        assert kept.removed == 0
        assert contents(lab.archive / "laptop") == before
        report = await lab.push(server, source, mirror=True)
    assert (report.removed, report.notice) == (5, "")
    assert contents(lab.archive / "laptop") == contents(source)
    trash = lab.archive / "laptop" / ".furymesh-trash"
    found = {path.name for path in trash.rglob("*") if path.is_file()}
    assert found == {Path(name).name for name in gone}


async def test_a_mirror_does_not_empty_a_folder_by_accident(lab: Lab, source: Path) -> None:
    async with lab.server() as server:
        await lab.push(server, source)
        before = contents(lab.archive / "laptop")
        empty = lab.root / "empty"
        empty.mkdir()
        report = await lab.push(server, empty, mirror=True)
        assert report.removed == 0
        assert "nothing was removed" in report.notice
        assert contents(lab.archive / "laptop") == before
        report = await lab.push(server, empty, mirror=True, force=True)
    assert report.removed == len(before)
    assert contents(lab.archive / "laptop") == {}


async def test_a_mirror_does_not_remove_what_was_excluded_since(lab: Lab, source: Path) -> None:
    (source / "keep.tmp").write_bytes(b"kept at the server")
    async with lab.server() as server:
        await lab.push(server, source)
        report = await lab.push(server, source, mirror=True, excludes=("*.tmp",))
    assert report.removed == 0
    assert (lab.archive / "laptop" / "keep.tmp").exists()


async def test_a_folder_becomes_a_file_in_a_mirror_and_is_refused_else(
    lab: Lab, source: Path
) -> None:
    (source / "thing").mkdir()
    (source / "thing" / "inside").write_bytes(b"inside")
    async with lab.server() as server:
        await lab.push(server, source)
        (source / "thing" / "inside").unlink()
        (source / "thing").rmdir()
        (source / "thing").write_bytes(b"a file now")
        report = await lab.push(server, source)
        assert report.failed_count == 1
        assert report.failed[0][0] == "thing"
        assert "is a folder on the server" in report.failed[0][1]
        report = await lab.push(server, source, mirror=True)
    assert (report.failed_count, report.files) == (0, 1)
    assert contents(lab.archive / "laptop") == contents(source)


# --- what fails -----------------------------------------------------------------------


async def test_what_failed_is_tried_again_and_nothing_else_travels(lab: Lab, source: Path) -> None:
    (source / "late").write_bytes(b"in the way of a folder")
    obstacle = lab.archive / "laptop" / "late"
    obstacle.mkdir(parents=True)
    (obstacle / "x").write_bytes(b"x")
    async with lab.server() as server:
        report = await lab.push(server, source)
        assert report.failed_count == 1
        (obstacle / "x").unlink()
        obstacle.rmdir()
        report = await lab.push(server, source)
    assert (report.failed_count, report.files, report.bytes_sent) == (0, 1, 22)
    assert contents(lab.archive / "laptop") == contents(source)


async def test_a_file_that_changes_while_it_is_sent_arrives_in_one_state(
    lab: Lab, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = source / "growing.bin"
    file.write_bytes(os.urandom(12 * MIB))
    changes = 0

    def change(event: ClientEvent) -> None:
        nonlocal changes
        if isinstance(event, Progress) and event.bytes_done and not changes:
            changes += 1
            with file.open("ab") as end:
                end.write(b"more")

    async with lab.server() as server:
        report = await lab.push(server, source, on_event=change, max_upload=12e6)
    assert changes == 1
    assert report.failed_count == 0
    assert contents(lab.archive / "laptop") == contents(source)


async def test_a_file_that_is_never_the_same_twice_is_reported(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from furymesh.core.errors import SourceChangedError
    from furymesh.sync.archive import Archive

    read = Archive.read_small

    def restless(self: Archive, path: str, *rest: int) -> object:
        if path == "restless":
            raise SourceChangedError("it changes all the time")
        return read(self, path, *rest)

    (source / "restless").write_bytes(b"x" * 999)
    monkeypatch.setattr(Archive, "read_small", restless)
    async with lab.server() as server:
        report = await lab.push(server, source)
    assert report.failed_count == 1
    assert "restless" in report.failed[0][1]
    there = contents(lab.archive / "laptop")
    assert contents(source).keys() - there.keys() == {"restless"}


# --- going on -------------------------------------------------------------------------


async def test_an_interrupted_file_goes_on_at_its_offset(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large.bin").write_bytes(os.urandom(16 * MIB))
    arrived = 0
    async with lab.server() as server:
        with trio.CancelScope() as scope:

            def interrupt(event: ClientEvent) -> None:
                nonlocal arrived
                if isinstance(event, Progress) and event.bytes_done > 2 * MIB:
                    arrived = event.bytes_done
                    scope.cancel()

            await lab.push(server, source, on_event=interrupt, max_upload=10e6)
        assert scope.cancelled_caught
        await until(lambda: bool(server.of(Gone)))
        report = await lab.push(server, source)
    assert report.bytes_sent <= 16 * MIB - arrived
    assert contents(lab.archive / "laptop") == contents(source)
    assert server.of(Planned)[-1].text == "Resuming 0 completed, 1 partial, 0 fresh files"


async def test_more_large_files_than_a_lock_holds_arrive_all_the_same(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "MAX_LOCKED", 1)
    monkeypatch.setattr(transfer_lock, "MAX_FILES", 1)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"{number}").write_bytes(os.urandom(MIB))
    async with lab.server() as server:
        report = await lab.push(server, source)
    assert (report.files, report.failed_count) == (3, 0)
    assert contents(lab.archive / "laptop") == contents(source)


async def test_a_client_goes_on_by_itself_when_its_server_is_back(lab: Lab, source: Path) -> None:
    async with lab.server() as first:
        port = first.address.port
        await lab.push(first, source)
    (source / "new").write_bytes(b"new")
    async with trio.open_nursery() as nursery:
        reports: list[Report] = []

        async def push() -> None:
            reports.append(await lab.push(first, source))

        nursery.start_soon(push)
        await until(lambda: any(isinstance(event, Lost) for event in lab.events))
        async with lab.server(port=port):
            await until(lambda: bool(reports), 10.0)
    assert reports[0].files == 1


async def test_without_once_it_comes_again_when_the_server_says(lab: Lab, source: Path) -> None:
    seen: list[int] = []

    def look(event: ClientEvent) -> None:
        if isinstance(event, Report):
            seen.append(event.files)
            (source / f"more{len(seen)}").write_bytes(b"%d" % len(seen))

    async with lab.server(rate=1) as server, trio.open_nursery() as nursery:

        async def push() -> None:
            await lab.push(server, source, on_event=look, once=False)

        nursery.start_soon(push)
        await until(lambda: len(seen) == 3, 10.0)
        nursery.cancel_scope.cancel()
    assert seen[1:] == [1, 1]


async def test_a_change_is_synced_at_once_when_watched(lab: Lab, source: Path) -> None:
    pytest.importorskip("watchfiles")
    reports: list[Report] = []

    def look(event: ClientEvent) -> None:
        if isinstance(event, Report):
            reports.append(event)

    async with lab.server() as server, trio.open_nursery() as nursery:

        async def push() -> None:
            await lab.push(server, source, on_event=look, once=False, watch=True)

        nursery.start_soon(push)
        await until(lambda: bool(reports), 10.0)
        (source / "changed").write_bytes(b"changed")
        await until(lambda: len(reports) > 1, 10.0)
        nursery.cancel_scope.cancel()
    assert reports[1].files == 1


# --- who may ----------------------------------------------------------------------------


async def test_a_client_id_belongs_to_the_node_that_first_used_it(lab: Lab, source: Path) -> None:
    async with lab.server() as server:
        await lab.push(server, source)
        with pytest.raises(PeerError, match="belongs to another node"):
            await lab.push(server, source, home="other")
        await lab.push(server, source, "desktop", home="other")
    assert contents(lab.archive / "desktop") == contents(source)


async def test_the_server_of_the_first_time_is_the_one(lab: Lab, source: Path) -> None:
    async with lab.server() as server:
        await lab.push(server, source)
        port = server.address.port
    assert [event.new for event in lab.events if isinstance(event, Found)] == [True]
    async with lab.server(home="impostor", port=port) as other:
        with pytest.raises(HandshakeError, match='is not the server that client id "laptop"'):
            await lab.push(other, source)
        named = Address("127.0.0.1", port, other.node_id)
        report = await lab.push(named, source, home="client")
        assert report.failed_count == 0
        await lab.push(other, source)


async def test_only_listed_nodes_are_let_in(lab: Lab, source: Path) -> None:
    from furymesh.net.identity import load_or_create

    listed = load_or_create(lab.root / "client").node_id
    async with lab.server(allow=[listed]) as server:
        await lab.push(server, source)
        with pytest.raises(LinkClosedError, match="if it serves listed nodes only"):
            await lab.push(server, source, "x", home="other", timeout=0.5)


async def test_one_push_of_a_client_id_at_a_time(lab: Lab, source: Path) -> None:
    async with lab.server() as server, trio.open_nursery() as nursery:

        async def push() -> None:
            await lab.push(server, source, once=False)

        nursery.start_soon(push)
        await until(lambda: any(isinstance(event, Report) for event in lab.events))
        with pytest.raises(AlreadyRunningError):
            await lab.push(server, source)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"folder": Path("/nowhere/at/all")}, NotFoundError),
        ({"client_id": "../up"}, UsageError),
        ({"excludes": ("[",)}, UsageError),
        ({"server": Address("127.0.0.1", 1), "timeout": 0.1}, UnavailableError),
    ],
)
async def test_what_time_does_not_mend_is_said_at_once(
    lab: Lab, source: Path, change: dict[str, object], error: type[FuryMeshError]
) -> None:
    settings = {"server": Address("127.0.0.1", 1), "folder": source, "client_id": "x"} | change
    with pytest.raises(error):
        await lab.push(**settings)  # type: ignore[arg-type]


async def test_nobody_is_looked_for_where_that_is_off(lab: Lab, source: Path) -> None:
    from furymesh.node.sync import push_folder
    from furymesh.sync.pushing import Terms
    from tests.unit.sync.lab import config

    with pytest.raises(UsageError, match="--server"):
        await push_folder(
            config(lab.root / "client"),
            Terms(source, "x", once=True, lan=False),
            on_event=lab.events.append,
        )


# --- the queue ------------------------------------------------------------------------


async def test_clients_are_served_in_the_order_in_which_they_came(lab: Lab, source: Path) -> None:
    places: dict[str, list[int]] = {}
    async with lab.server() as server, trio.open_nursery() as nursery:
        names = [f"client{n}" for n in range(5)]
        scopes = {name: trio.CancelScope() for name in names}

        async def push(name: str) -> None:
            def look(event: ClientEvent) -> None:
                if isinstance(event, Queued):
                    places.setdefault(name, []).append(event.place)

            with scopes[name]:
                await lab.push(server, source, name, home=name, on_event=look, max_upload=300_000)

        for number, name in enumerate(names):
            nursery.start_soon(push, name)
            await until(lambda: len(server.of(Came)) > number)  # noqa: B023
        assert [event.place for event in server.of(Came)] == [0, 1, 2, 3, 4]
        await until(lambda: len(places) == 4)
        scopes["client2"].cancel()  # in the queue
        await until(lambda: places["client4"] == [4, 3])
        scopes["client0"].cancel()  # in its session
        await until(lambda: [event.client_id for event in server.of(Begun)][-1] == "client1")
        with trio.fail_after(30):
            await until(lambda: len(server.of(Synced)) == 3, 30.0)
    assert [event.client_id for event in server.of(Begun)] == [
        *("client0", "client1", "client3", "client4")
    ]
    assert places["client3"] == [3, 2, 1]
    assert [event.client_id for event in server.of(Gone)] == ["client2", "client0"]
    for name in ("client1", "client3", "client4"):
        assert contents(lab.archive / name) == contents(source)


async def test_who_comes_again_takes_its_own_place(lab: Lab, source: Path) -> None:
    async with lab.server() as server, lab.raw(server) as dead:
        await dead.begin("laptop")
        report = await lab.push(server, source)
    assert report.failed_count == 0


async def test_who_says_nothing_in_its_session_loses_it(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SILENT_SECONDS", 0.3)
    async with lab.server() as server, lab.raw(server, "lazy") as lazy:
        await lazy.begin("lazy")
        report = await lab.push(server, source)
        assert await lazy.hear() == m.Goodbye(m.Reason.IDLE, "nothing was said for too long")
    assert report.failed_count == 0


async def test_who_only_gives_signs_loses_it_once_somebody_waits(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HASHING_SECONDS", 0.2)
    async with lab.server() as server, lab.raw(server) as lazy, lab.raw(server, "other") as other:
        await lazy.begin("lazy")

        async def sign() -> m.Message:
            await lazy.say(announced(last=False))
            return await lazy.hear()

        begun = trio.current_time()
        while trio.current_time() - begun < 0.5:
            assert await sign() == m.ArchiveTasks()
        await other.say(m.Identify("other"))
        assert await other.hear() == m.Busy(1)
        while (heard := await sign()) == m.ArchiveTasks():
            pass
        assert heard == m.Goodbye(m.Reason.IDLE, "nothing was said for too long")
        assert await other.hear() == m.Ready()


async def test_a_client_that_waits_for_its_server_to_hash_says_so(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "COMPARING_SECONDS", 0.05)
    hash_held, said = Holdings.hash, threading.Event()

    def hash_slowly(held: Holdings, paths: list[str], *rest: Any) -> None:
        said.wait(TIMEOUT)
        hash_held(held, paths, *rest)

    shutil.copytree(source, lab.archive / "laptop")  # by somebody else: nobody knows the hashes
    monkeypatch.setattr(Holdings, "hash", hash_slowly)

    def look(event: ClientEvent) -> None:
        if isinstance(event, Comparing) and event.files:
            said.set()

    async with lab.server() as server:
        report = await lab.push(server, source, on_event=look)
    assert said.is_set()
    assert report.bytes_sent == 0


# --- who misbehaves ---------------------------------------------------------------------


async def test_a_link_for_something_else_is_sent_away(lab: Lab) -> None:
    async with lab.server() as server, lab.raw(server, feature="rendezvous") as link:
        assert await link.hear() == m.Goodbye(m.Reason.NOT_FOUND, "only folder sync is served here")


@pytest.mark.parametrize(
    "path",
    [
        *("../escaped", "/etc/escaped", "a/../../escaped", "C:/x", "con", "a//b", "a\x00b", "."),
        *(LOCK_NAME, "transfer_warnings.log", ".furymesh-trash/x", "x" * 300, "\x1b[31m"),
    ],
    ids=ascii,
)
async def test_paths_that_lead_elsewhere_fail_by_themselves(lab: Lab, path: str) -> None:
    digest = hashlib.sha256(b"good").digest()
    async with lab.server() as server, lab.raw(server) as link:
        before = {found.name for found in lab.root.rglob("*")}
        await link.begin("laptop")
        await link.say(announced((path, 4), ("good", 4)))
        failed = await link.hear()
        assert isinstance(failed, m.ArchiveFailed)
        assert failed.file == 0
        assert failed.detail.isprintable()
        assert await link.hear() == m.ArchiveTasks((1,), (0,))
        await link.say(m.ArchiveData((1,), (0,), (4,), digest, 4), b"good")
        assert await link.hear() == m.ArchiveWritten(1)
        assert await link.hear() == m.NextSync(RATE)
    there = contents(lab.archive / "laptop")
    assert {name: data for name, (data, _, _) in there.items()} == {"good": b"good"}
    assert "escaped" not in {found.name for found in lab.root.rglob("*")} - before


async def test_wrong_bytes_are_asked_for_again_and_then_given_up(lab: Lab) -> None:
    async with lab.server() as server, lab.raw(server) as link:
        await link.begin("laptop")
        await link.say(announced(("wrong", 4)))
        heard: list[m.Message] = [await link.hear()]
        asked = 0
        while not isinstance(heard[-1], m.NextSync):
            if isinstance(heard[-1], m.ArchiveTasks):
                asked += 1
                await link.say(m.ArchiveData((0,), (0,), (4,), bytes(DIGEST_SIZE), 4), b"evil")
            heard.append(await link.hear())
    assert asked == 4
    (failed,) = [message for message in heard if isinstance(message, m.ArchiveFailed)]
    assert "SHA-256" in failed.detail
    assert contents(lab.archive / "laptop") == {}


@pytest.mark.parametrize(
    ("limit", "most"), [("MAX_FILES", 3), ("MAX_NAMES", 3 * sys.getsizeof("f0"))]
)
async def test_more_files_than_a_server_keeps_of_one_client_are_refused(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(limits, limit, most)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(5):
        (source / f"f{number}").write_bytes(b"%d" % number)
    folder = lab.archive / "laptop"
    async with lab.server() as server:
        report = await lab.push(server, source)
        assert (report.files, report.failed_count) == (3, 2)
        assert "takes no more files" in report.failed[0][1]
        # What is there is kept in step, and what goes makes room.
        (source / "f0").write_bytes(b"changed")
        (source / "f1").unlink()
        report = await lab.push(server, source, mirror=True)
        assert (report.files, report.removed, report.failed_count) == (1, 1, 2)
        report = await lab.push(server, source)
        assert (report.files, report.failed_count) == (1, 1)
        (folder / "by").write_bytes(b"somebody else")
        with pytest.raises(PeerError, match="remove some there"):
            await lab.push(server, source)


async def test_of_folders_too_the_names_take_room(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_NAMES", 1500)
    async with lab.server() as server, lab.raw(server) as link:
        await link.begin("laptop")
        await link.say(announced(("/".join("abcdefghijklmnopqrstuvwxyz"), 0), ("x", 0)))
        failed = await link.hear()
        assert isinstance(failed, m.ArchiveFailed)
        assert failed.file == 0
        assert "takes no more files" in failed.detail


async def test_of_a_file_announced_again_and_again_the_last_number_counts(lab: Lab) -> None:
    async with lab.server() as server, lab.raw(server) as link:
        await link.begin("laptop")
        for number in range(9):
            await link.say(announced(("a", 4), last=number == 8))
            assert await link.hear() == m.ArchiveTasks((number,), (0,))
        for number, content in ((0, b"old!"), (8, b"new!")):
            digest = hashlib.sha256(content).digest()
            await link.say(m.ArchiveData((number,), (0,), (4,), digest, 4), content)
        await link.say(m.ArchiveSkip(tuple(range(8))))
        while (heard := await link.hear()) != m.NextSync(RATE):
            assert isinstance(heard, m.ArchiveWritten)
        await until(lambda: bool(server.of(Synced)))
    assert (lab.archive / "laptop" / "a").read_bytes() == b"new!"
    assert [(event.stored, event.received) for event in server.of(Synced)] == [(1, 4)]


async def test_a_node_that_serves_no_folders_is_told_from_a_server(lab: Lab, source: Path) -> None:
    from furymesh.core.link import Address
    from furymesh.node.runtime import open_runtime
    from tests.unit.sync.lab import config

    async with open_runtime(
        config(lab.root / "node"), listen_on=Address("127.0.0.1", 0)
    ) as runtime:
        with pytest.raises(PeerError, match="serves no folders"):
            await lab.push(Address.parse(runtime.addresses[0]), source)
    assert not any(isinstance(event, Note) for event in lab.events)


async def test_a_server_that_asks_without_end_does_not_fill_the_clients_memory(
    lab: Lab, source: Path
) -> None:
    async def ask(link: SecureLink) -> None:
        exchange = link.session.exchange = Exchange(client=False)
        assert isinstance(await link.hear(), m.Identify)
        exchange.sent(m.Ready())
        await link.say(m.Ready())
        page = await link.hear()
        assert isinstance(page, m.ArchiveInfo)
        files = tuple([n for n, size in enumerate(page.sizes) if size])
        await link.say(m.ArchiveTasks(files, (0,) * len(files)))
        with suppress(LinkClosedError):
            while True:  # and never take a byte
                await link.say(m.ArchiveTasks(files, (0,) * len(files), again=True))
        link.close()

    endpoint = Endpoint(new_identity(), features=(SYNC,))
    async with listening(endpoint, ask) as address:
        with pytest.raises(PeerError, match="again and again"):
            await lab.push(address, source)
