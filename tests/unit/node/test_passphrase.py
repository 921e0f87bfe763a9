"""The passphrase over a data directory: everything sealed, everything readable, always."""

from __future__ import annotations

import base64
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from furymesh.core import protection
from furymesh.core.errors import (
    AlreadyRunningError,
    EnvironmentFault,
    LocalDataError,
    NotFoundError,
    PassphraseError,
    PassphraseNeededError,
    UsageError,
)
from furymesh.core.ids import FileId
from furymesh.core.link import Link
from furymesh.net.identity import FILE_NAME as IDENTITY_FILE
from furymesh.net.identity import load_or_create, stored_node_id
from furymesh.node import face, passphrase
from furymesh.node.config import Config
from furymesh.node.orders import DetachedOrder, Orders
from furymesh.node.passphrase import opened_protection, remove_passphrase, set_passphrase
from furymesh.node.resumes import list_resume
from furymesh.node.runtime import open_runtime
from furymesh.storage.catalog import Catalog
from furymesh.storage.order import Order, Settings
from furymesh.storage.resume import ResumeData, ResumeMeta
from furymesh.storage.workspace import Workspace
from tests.apart import apart
from tests.reliability import Record

FIRST, SECOND = "correct horse battery", "staple häßlich"
ORDER_ID, RESUME_ID = FileId(b"\1" * 32), FileId(b"\2" * 32)
KEY_OF_ORDER, KEY_OF_RESUME = b"\xa1" * 32, b"\xa2" * 32
KILLED = 99
SHORT_STEP = 7  # every so many calls to the disk; the long form takes each


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of scrypt is looked at elsewhere."""
    monkeypatch.setattr(protection, "SCRYPT_N", 2)
    monkeypatch.setattr(protection, "SCRYPT_P", 1)
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.delenv(passphrase.NEW_VARIABLE, raising=False)


@dataclass(frozen=True)
class Secrets:
    """Everything secret that a data directory holds."""

    seed: bytes
    share: bytes | None
    order: bytes | None
    resume: bytes | None


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A data directory with a key of every kind."""
    made = apart({"data_dir": tmp_path / "home"})
    source = tmp_path / "source"
    source.write_bytes(b"content" * 100)
    trio.run(partial(face.share, source, made, encrypt=True))
    face.identity(made)
    Orders(made.data_dir).add(DetachedOrder(Link(ORDER_ID, key=KEY_OF_ORDER)))
    meta = ResumeMeta(RESUME_ID, "a", str(tmp_path / "a"), "", 0.0, key=KEY_OF_RESUME)
    ResumeData.create(made.transfer.resume_dir, meta).close()
    return made


def secrets_of(config: Config, given: str | None = None) -> Secrets:
    """What can be read with this passphrase, by the ways that commands take."""
    with opened_protection(config, given) as opened:
        identity = load_or_create(config.data_dir, opened)
        entries, damaged = Catalog(config.data_dir, opened).list()
        orders, problems = Orders(config.data_dir, opened).list()
        assert not damaged
        assert not problems
        resume_dir = config.transfer.resume_dir
        settings = Settings(config.data_dir, resume_dir, config.data_dir, protection=opened)
        workspace = Workspace(Order(RESUME_ID), settings)
        workspace.recall()
        workspace.close()
    (entry,) = entries
    (order,) = orders
    return Secrets(identity.private.private_bytes_raw(), entry.key, order.link.key, workspace.key)


def forms(secret: bytes) -> list[bytes]:
    encoded = base64.b64encode(secret), base64.urlsafe_b64encode(secret).rstrip(b"=")
    return [secret, *encoded, secret.hex().encode()]


def on_disk(config: Config, secrets: Secrets) -> list[Path]:
    """The files in which a secret stands open."""
    known = [secrets.seed, secrets.share, secrets.order, secrets.resume]
    needles = [form for secret in known if secret for form in forms(secret)]
    files = [path for path in config.data_dir.rglob("*") if path.is_file()]
    return [path for path in files if any(n in path.read_bytes() for n in needles)]


def test_a_passphrase_seals_every_key_and_each_opens_again(config: Config) -> None:
    before = secrets_of(config)
    assert len(on_disk(config, before)) == 4
    set_passphrase(config, FIRST)
    assert on_disk(config, before) == []
    assert secrets_of(config, FIRST) == before
    set_passphrase(config, SECOND, FIRST)
    assert on_disk(config, before) == []
    assert secrets_of(config, SECOND) == before
    with pytest.raises(PassphraseError):
        secrets_of(config, FIRST)
    remove_passphrase(config, SECOND)
    assert secrets_of(config) == before
    assert len(on_disk(config, before)) == 4


def test_all_that_is_written_is_private(config: Config) -> None:
    set_passphrase(config, FIRST)
    for path in config.data_dir.rglob("*"):
        if path.is_file() and path.parent.name != "manifests":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_wrong_passphrase_changes_nothing(config: Config) -> None:
    set_passphrase(config, FIRST)
    before = {path: path.read_bytes() for path in config.data_dir.rglob("*") if path.is_file()}
    for change in (
        partial(set_passphrase, config, "new", "wrong"),
        partial(remove_passphrase, config, "wrong"),
    ):
        with pytest.raises(PassphraseError, match="wrong passphrase"):
            change()
    after = {path: path.read_bytes() for path in config.data_dir.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("kind", ["catalog", "orders"])
def test_a_key_that_the_disk_refuses_to_read_is_not_left_behind(config: Config, kind: str) -> None:
    before = secrets_of(config)
    set_passphrase(config, FIRST)
    (path,) = (config.data_dir / kind).glob("*.json")
    aside = path.rename(config.data_dir / "aside")
    path.mkdir()  # cannot be read just now, as after a disk error
    with pytest.raises(EnvironmentFault, match="cannot read"):
        remove_passphrase(config, FIRST)
    path.rmdir()
    aside.rename(path)
    assert secrets_of(config, FIRST) == before
    remove_passphrase(config, FIRST)
    assert secrets_of(config) == before


def test_no_passphrase_to_remove(config: Config) -> None:
    with pytest.raises(NotFoundError, match="nothing to remove"):
        remove_passphrase(config)


def test_nobody_to_ask_is_said_with_what_to_do(config: Config) -> None:
    set_passphrase(config, FIRST)
    with pytest.raises(PassphraseNeededError, match="FURYMESH_PASSPHRASE_FILE"):
        secrets_of(config)


def test_empty_and_endless_passphrases_are_refused(config: Config) -> None:
    for bad in ("", "x" * 1025):
        with pytest.raises(UsageError, match="passphrase is"):
            set_passphrase(config, bad)
    assert not passphrase.is_set(config)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_passphrase_in_a_file(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    before = secrets_of(config)
    set_passphrase(config, SECOND)
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(SECOND.encode() + ending.encode())
    encryption = config.encryption.model_copy(update={"passphrase_file": path})
    configured = config.model_copy(update={"encryption": encryption})
    assert secrets_of(configured) == before
    monkeypatch.setenv(passphrase.VARIABLE, str(path))
    assert secrets_of(config) == before
    path.chmod(0o644)
    with pytest.raises(Exception, match="chmod 600"):
        secrets_of(config)


def test_a_passphrase_in_place_of_its_file_is_not_repeated(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_passphrase(config, FIRST)
    monkeypatch.setenv(passphrase.VARIABLE, FIRST)
    with pytest.raises(Exception, match="not the secret") as caught:
        secrets_of(config)
    assert FIRST not in str(caught.value)


def test_what_needs_no_key_asks_for_none(config: Config) -> None:
    node_id = face.identity(config)
    set_passphrase(config, FIRST)
    assert face.identity(config) == node_id
    assert stored_node_id(config.data_dir) == node_id
    (item,) = face.shares(config)
    assert item.locked
    assert item.encrypted
    assert item.link.key is None
    assert len(list_resume(config)) == 1
    trio.run(face.unshare, item.file_id.hex(), config)


def test_keys_that_come_later_are_sealed_too(config: Config, tmp_path: Path) -> None:
    set_passphrase(config, FIRST)
    (tmp_path / "later").write_bytes(b"more")
    shared = trio.run(
        partial(face.share, tmp_path / "later", config, encrypt=True, passphrase=FIRST)
    )
    key = shared.link.key
    assert key is not None
    with opened_protection(config, FIRST) as opened:
        Orders(config.data_dir, opened).add(DetachedOrder(Link(ORDER_ID, key=key)))
    assert on_disk(config, Secrets(key, None, None, None)) == []
    with pytest.raises(PassphraseNeededError):
        trio.run(partial(face.share, tmp_path / "later", config, encrypt=True))
    assert trio.run(partial(face.share, tmp_path / "later", config)).link.key is None


def test_a_new_identity_is_sealed_from_the_start(config: Config) -> None:
    set_passphrase(config, FIRST)
    (config.data_dir / IDENTITY_FILE).unlink()
    node_id = face.identity(config, passphrase=FIRST)
    assert b"sealed" in (config.data_dir / IDENTITY_FILE).read_bytes()
    assert face.identity(config) == node_id


def test_without_its_passphrase_file_a_sealed_key_says_what_is_missing(config: Config) -> None:
    set_passphrase(config, FIRST)
    (config.data_dir / passphrase.FILE_NAME).unlink()
    with pytest.raises(LocalDataError, match=r"passphrase\.key.*backup"):
        secrets_of(config)


def test_every_damaged_byte_of_a_sealed_identity_is_found(config: Config) -> None:
    set_passphrase(config, FIRST)
    path = config.data_dir / IDENTITY_FILE
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            path.write_bytes(bad)
            with pytest.raises(LocalDataError, match="damaged"):
                stored_node_id(config.data_dir)


async def test_no_change_while_the_keys_are_used(config: Config) -> None:
    async with open_runtime(config, listen_on=None):
        with pytest.raises(AlreadyRunningError, match="stop it first"):
            set_passphrase(config, FIRST)
    await trio.to_thread.run_sync(set_passphrase, config, FIRST)
    async with open_runtime(config, listen_on=None, passphrase=FIRST):
        with pytest.raises(AlreadyRunningError, match="stop it first"):
            remove_passphrase(config, FIRST)


# --- crashes ------------------------------------------------------------------------------

POINTS = ("rename", "replace", "link", "unlink", "fsync", "fdatasync", "write", "pwrite", "open")
Change = Callable[[Config], None]
CHANGES: dict[str, tuple[Change, str | None, str | None]] = {
    "set": (partial(set_passphrase, new=FIRST), None, FIRST),
    "change": (partial(set_passphrase, new=SECOND, current=FIRST), FIRST, SECOND),
    "remove": (partial(remove_passphrase, current=FIRST), FIRST, None),
}


def killed_at(number: int, change: Change, config: Config) -> bool:
    """Run `change` in a process that ends at its n-th call to the disk; whether it got there."""
    pid = os.fork()
    if not pid:
        try:
            _arm(number)
            change(config)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED), f"call {number}: ended with {code}"
    return code == KILLED


def _arm(number: int) -> None:
    left = number

    def armed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(KILLED)
            return real(*arguments, **options)

        return call

    for name in POINTS:
        setattr(os, name, armed(getattr(os, name)))


@pytest.fixture
def _no_debris(config: Config) -> Iterator[None]:
    yield
    assert not [path for path in config.data_dir.rglob("*") if path.name.endswith((".tmp", ".new"))]


@pytest.mark.promise(22)
@pytest.mark.usefixtures("_no_debris")
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("step", [SHORT_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_call_everything_can_be_read_and_the_change_be_finished(
    config: Config, name: str, step: int, record_property: Record
) -> None:
    change, before, after = CHANGES[name]
    secrets = secrets_of(config)
    if before is not None:
        set_passphrase(config, before)
    template = config.data_dir.with_name("template")
    shutil.copytree(config.data_dir, template)
    number = cases = 0
    while killed_at(number, change, config):
        # It opens with the one or with the other, whole.
        given = before if not passphrase.is_set(config) or _opens(config, before) else after
        assert secrets_of(config, given) == secrets, f"killed at call {number}"
        if given is not None and passphrase.is_set(config) and after is not None:
            set_passphrase(config, after, given)
        elif after is not None:
            set_passphrase(config, after)
        elif passphrase.is_set(config):
            remove_passphrase(config, before)
        assert secrets_of(config, after) == secrets
        assert bool(on_disk(config, secrets)) == (after is None), f"killed at call {number}"
        shutil.rmtree(config.data_dir)
        shutil.copytree(template, config.data_dir)
        number += step
        cases += 1
    assert number > 10
    record_property("cases", cases)
    record_property("result", "every key readable after a kill at any call of a change")


def _opens(config: Config, given: str | None) -> bool:
    try:
        with opened_protection(config, given):
            return True
    except (PassphraseError, PassphraseNeededError):
        return False
