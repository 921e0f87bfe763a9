from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio

from furymesh.core.errors import (
    EnvironmentFault,
    NotFoundError,
    UnavailableError,
    UsageError,
    WrongKeyError,
)
from furymesh.core.ids import FileId, NodeId
from furymesh.core.link import Address, Link
from furymesh.node import face
from furymesh.node.config import Config
from furymesh.node.resumes import with_hints
from furymesh.node.runtime import open_runtime
from furymesh.storage.check import Check
from furymesh.swarm.events import Event, Started, Trouble
from tests.apart import ALONE, apart
from tests.proc import open_files
from tests.waiting import until

CHUNK = 16 * 1024
DATA = Random(8).randbytes(5 * CHUNK + 3)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    place = tmp_path / "home"
    return apart({"data_dir": place, "storage": {"reserve": "0"}})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(DATA)
    return path


async def test_sharing_twice_hashes_once(config: Config, source: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = await face.share(source, config, progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(DATA), len(DATA))
    again = await face.share(source, config)
    assert (first.cached, again.cached) == (False, True)
    assert first.file_id == again.file_id
    assert not again.served
    (item,) = face.shares(config)
    assert (item.name, item.size, item.path) == ("film.bin", len(DATA), source)


async def test_a_manifest_that_cannot_be_read_hides_no_share_and_is_made_anew(
    config: Config, source: Path
) -> None:
    shared = await face.share(source, config)
    manifest = config.data_dir / "manifests" / shared.file_id.hex()
    manifest.unlink()
    manifest.symlink_to("/nowhere")
    assert [item.file_id for item in face.shares(config)] == [shared.file_id]
    again = await face.share(source, config)
    assert (again.file_id, again.cached) == (shared.file_id, False)
    assert [item.chunks for item in face.shares(config)] == [shared.chunks]


async def test_a_manifest_is_put_in_the_place_of_no_pipe_or_device(
    config: Config, source: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(EnvironmentFault, match="name another file"):
        await face.share(source, config, manifest_out=pipe)
    assert pipe.is_fifo()


async def test_encrypted_share_has_its_key_in_the_link_only(config: Config, source: Path) -> None:
    plain = await face.share(source, config)
    sealed = await face.share(source, config, encrypt=True)
    assert sealed.encrypted
    assert sealed.link.key is not None
    assert sealed.file_id != plain.file_id
    assert sealed.link.key.hex() not in repr(sealed)


async def test_sharing_by_configuration(tmp_path: Path, source: Path) -> None:
    config = apart(
        {
            "data_dir": tmp_path / "home",
            "encryption": {"default_hash": "sha256", "encrypt_by_default": True},
        }
    )
    shared = await face.share(source, config)
    assert (shared.hash, shared.encrypted) == ("sha256", True)
    plain = await face.share(source, config, encrypt=False, algorithm="blake3")
    assert (plain.hash, plain.encrypted) == ("blake3", False)


async def test_nothing_to_share(config: Config, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await face.share(tmp_path / "missing", config)
    with pytest.raises(NotFoundError):
        await face.unshare("12345678", config)


async def test_get_resume_and_verify(tmp_path: Path, source: Path, config: Config) -> None:
    user = apart(
        {"data_dir": tmp_path / "user", "storage": {"reserve": "0", "download_dir": tmp_path}}
    )
    shared = await face.share(source, config, chunk_size=CHUNK)
    with trio.fail_after(15):
        async with open_runtime(config, listen_on=Address("127.0.0.1", 0)) as runtime:
            await runtime.load_catalog()
            peers = [Address.parse(runtime.addresses[0])]
            with pytest.raises(UsageError):
                await face.get(shared.link, user, peers=peers, sha256="12")
            out = tmp_path / "out.bin"
            events: list[Event] = []
            result = await face.get(
                shared.link.text, user, peers=peers, output=out, on_event=events.append
            )
            assert result.path == out
            assert any(isinstance(event, Started) for event in events)
            link = Link(shared.file_id, peers=tuple(peers)).text
            assert (await face.verify(out, link, user)).bad == ()
            # Who never had it fetches the manifest to check against.
            stranger = apart({"data_dir": tmp_path / "stranger"})
            assert (await face.verify(out, link, stranger)).bad == ()
        with out.open("r+b") as file:
            file.write(b"????")
        assert (await face.verify(out, shared.file_id.hex()[:8], user)).bad == (0,)
        with pytest.raises(NotFoundError):
            await face.resume(shared.file_id, user)


async def test_what_a_link_names_is_known_after_an_interruption(
    tmp_path: Path, source: Path, config: Config
) -> None:
    user = apart({"data_dir": tmp_path / "user", "storage": {"reserve": "0"}})
    shared = await face.share(source, config, chunk_size=CHUNK)
    elsewhere = NodeId(b"e" * 32)
    with trio.fail_after(15):
        async with open_runtime(config, listen_on=Address("127.0.0.1", 0)) as runtime:
            await runtime.load_catalog()
            seed = replace(
                Address.parse(runtime.addresses[0]), node_id=runtime.endpoint.identity.node_id
            )
            link = replace(shared.link, peers=(seed,), nodes=(elsewhere,))
            with trio.CancelScope() as killed:

                def kill(event: Event) -> None:
                    if isinstance(event, Started):
                        killed.cancel()

                await face.get(link, user, output=tmp_path / "out.bin", on_event=kill)
            assert with_hints(Link(shared.file_id), user).node_ids == link.node_ids
            result = await face.resume(shared.file_id, user)
            assert result.path.read_bytes() == source.read_bytes()


NOWHERE = "http://127.0.0.1:9/announce"


@pytest.mark.parametrize(
    ("discovery", "complaint"),
    [
        (ALONE, "no peer is known, and none is looked for: name one with --peer"),
        (
            {**ALONE, "trackers": [NOWHERE]},
            "nobody who has it was found at trackers"
            " (tracker http://127.0.0.1:9: no connection: connection refused):"
            " check the network and the id, or name one with --peer",
        ),
    ],
    ids=["switched off", "dead tracker"],
)
async def test_why_nobody_was_found_is_told(
    tmp_path: Path, discovery: dict[str, object], complaint: str
) -> None:
    user = Config.model_validate({"data_dir": tmp_path / "user", "discovery": discovery})
    events: list[Event] = []
    with pytest.raises(UnavailableError) as caught:
        await face.get(Link(FileId(b"?" * 32)), user, timeout=0.5, on_event=events.append)
    assert str(caught.value) == complaint
    troubles = [event.text for event in events if isinstance(event, Trouble)]
    assert len(troubles) == complaint.count("connection refused")


@pytest.mark.parametrize("cancelled", [False, True])
async def test_downloads_leave_no_descriptor_behind(
    tmp_path: Path, source: Path, config: Config, cancelled: bool
) -> None:
    shared = await face.share(source, config, chunk_size=CHUNK)

    async def download(number: int, peers: list[Address]) -> None:
        user = apart({"data_dir": tmp_path / f"user{number}", "storage": {"reserve": "0"}})
        with trio.CancelScope() as scope:

            def on_event(event: Event) -> None:
                if cancelled and isinstance(event, Started):
                    scope.cancel()

            out = tmp_path / f"out{number}.bin"
            await face.get(shared.link, user, peers=peers, output=out, on_event=on_event)
        assert scope.cancelled_caught == cancelled

    with trio.fail_after(15):
        async with open_runtime(config, listen_on=Address("127.0.0.1", 0)) as runtime:
            await runtime.load_catalog()
            peers = [Address.parse(runtime.addresses[0])]
            await download(0, peers)  # what is opened once for all
            await until(lambda: not runtime.swarm.links)
            before = open_files()
            for number in range(1, 4):
                await download(number, peers)
            await until(lambda: not runtime.swarm.links)
            assert open_files() == before
        assert str(source) not in open_files(), "the sharer keeps its content open"


async def test_verify_needs_the_right_key(config: Config, source: Path) -> None:
    sealed = await face.share(source, config, encrypt=True)
    assert (await face.verify(source, sealed.file_id.hex(), config)).bad == ()
    wrong = Link(sealed.file_id, key=bytes(32)).text
    with pytest.raises(WrongKeyError):
        await face.verify(source, wrong, config)


async def test_detaching_needs_a_node(config: Config) -> None:
    with pytest.raises(UnavailableError, match="furymesh node"):
        await face.detach(Link.parse("ab" * 32), config)


async def test_identity_is_lasting(config: Config) -> None:
    assert face.identity(config) == face.identity(config)


async def test_disk_that_cannot_be_read_is_one_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.bin"
    path.write_bytes(b"content")
    config = apart({"data_dir": tmp_path / "home"})
    shared = await face.share(path, config)

    def fail(self: Check) -> int:
        raise EnvironmentFault("the disk reports errors")

    monkeypatch.setattr(Check, "run", fail)
    with pytest.raises(EnvironmentFault, match="reports errors"):
        await face.verify(path, shared.file_id.hex(), config, progress=lambda done, total: None)
