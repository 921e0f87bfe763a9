"""The whole command line, in this process, over stand-ins for the layers below."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from furymesh import __version__
from furymesh.cli.app import COMMANDS
from furymesh.cli.main import DEBUG_VARIABLE, main
from furymesh.core.errors import (
    AlreadyRunningError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from furymesh.core.ids import FileId, NodeId, node_id_text
from furymesh.core.link import Address, Link
from furymesh.core.snapshot import ResumeMeta
from furymesh.node.face import Verified
from furymesh.storage.resume import ResumeData
from furymesh.swarm.events import Result, Started

FILE_ID = FileId(bytes(range(32)))
HEX = FILE_ID.hex()
NODE_ID = NodeId(bytes(range(32)))


class Face(ModuleType):
    """furymesh.node.face, as far as a test fills it in."""

    def __init__(self) -> None:
        super().__init__("furymesh.node.face")
        self.calls: list[dict[str, Any]] = []

    def identity(self, config: object) -> NodeId:
        return NODE_ID

    async def status(self, config: object) -> None:
        return None

    def shares(self, config: object) -> list[object]:
        return []


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch) -> Face:
    import furymesh.node

    stand_in = Face()
    monkeypatch.setitem(sys.modules, "furymesh.node.face", stand_in)
    monkeypatch.setattr(furymesh.node, "face", stand_in, raising=False)
    return stand_in


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Set first, so that what a command sets is taken back as well.
    for variable in (DEBUG_VARIABLE, "FURYMESH_CONFIG", "COLUMNS", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A data directory with one unfinished download."""
    meta = ResumeMeta(
        FILE_ID,
        name="file.txt",
        output=str(tmp_path / "file.txt"),
        part=str(tmp_path / f"file.txt.{HEX[:8]}.part"),
        created_at=0.0,
        size=20 << 18,
        chunk_size=1 << 18,
        chunks_total=20,
    )
    with ResumeData.create(tmp_path / "data" / "resume", meta) as data:
        for chunk in range(13):
            data.add(chunk)
    return tmp_path / "data"


def run(*arguments: str) -> int:
    return main(arguments)


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command says."""
    err = capsys.readouterr().err
    assert err.startswith("furymesh: ")
    assert err.count("\n") == 1
    return err.removeprefix("furymesh: ").rstrip("\n")


# --- help and wrong usage ---------------------------------------------------------


def test_alone_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert "Usage: furymesh" in out
    assert "furymesh share movie.mkv" in out
    commands = out.partition("Commands:")[2]
    assert not [line for line in commands.splitlines() if line.endswith("...")], "a text is cut"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"furymesh {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*name.split(), "--help") == 0
    out = capsys.readouterr().out
    assert f"    furymesh {name}" in out
    assert max(map(len, out.splitlines())) <= 80
    assert " <" not in out.partition("Examples:")[0], "the name of a type of Python"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_told_its_places(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*name.split(), "--help") == 0
    out = capsys.readouterr().out
    assert "--config FILE" in out
    assert "--data-dir DIR" in out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("unshare", "demo")])
def test_every_command_that_tells_something_can_tell_it_in_json(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*name.split(), "--help") == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gte"], "no such command 'gte'; did you mean 'get'? see `furymesh --help`"),
        (["get", "--ouput", "x"], "no such option --ouput; did you mean --output"),
        (["--xyz", "x"], "no such option --xyz; see `furymesh --help`"),
        (["get"], "missing argument 'LINK|ID'; see `furymesh get --help`"),
        (["resume"], "missing option '--file-id'; see `furymesh resume --help`"),
        (["get", HEX, "--timeout", "soon"], "it should be a valid number; see `furymesh get"),
        (["get", HEX, "--timeout", "-1"], "--timeout: give a number of seconds above 0"),
        (["get", HEX, "--timeout", "nan"], "--timeout"),
        (["get", HEX, "--peer", "nowhere"], "--peer: 'nowhere' is not an address"),
        (["get", HEX, "--max-download", "fast"], "--max-download: 'fast' is not a size"),
        (["get", HEX, "--max-upload", "0"], "--max-upload: 0 would never finish"),
        (["get", HEX, "--output", "-"], "--output: a download cannot go to standard output"),
        (["get", HEX, "--detach", "--timeout", "3"], "--detach leaves timeout and limits"),
        (["get", HEX, "--detach", "--max-connections", "3"], "--detach leaves timeout and limits"),
        (["get", HEX, "--detach", "--no-space-check"], "--detach leaves timeout and limits"),
        (["get", HEX, "--max-connections", "0"], "invalid value for '--max-connections'"),
        (["get", "nonsense"], "'nonsense' is neither a link nor a file id"),
        (["get", "12"], "'12' is not a file id"),
        (["node", "--listen", "a:70000"], "a port is a number from 0, for any free one, to 65535"),
        (["share", "x", "--chunk-size", "big"], "--chunk-size: 'big' is not a size"),
        (["share", "x", "--hash", "md5"], "--hash: "),
        (["share", "x", "--tracker", "ftp://t"], "--tracker: 'ftp://t' is not a tracker"),
        (["share", "x", *["--tracker", "udp://t:1"] * 9], "--tracker: a link names at most 8"),
        (["share", "x", "y", "--name", "z"], "--name fits one path only"),
        (["node", "--listen", "7654"], "--listen: '7654' is not an address"),
        (["node", "--allow", "x"], "--allow: 'x' is not a node id"),
        (["clean-resume"], "say what to clean"),
        (["clean-resume", "--all", "--file-id", HEX], "say what to clean"),
        (["--config", "gone.yaml", "id"], "cannot read the configuration gone.yaml"),
        (["id", "--config", "gone.yaml"], "cannot read the configuration gone.yaml"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    face: Face, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert told in failure(capsys)


def test_an_id_that_lacks_a_digit_is_told_apart_from_an_unfinished_download(
    face: Face, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("get", HEX[:-1]) == 1
    assert failure(capsys).endswith("give its link, or all 64 digits of its id")


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("gone"), 1),
        (UnavailableError("gone"), 3),
        (VerificationError("gone"), 4),
        (AlreadyRunningError("gone"), 5),
        (KeyboardInterrupt(), 130),
        (ExceptionGroup("", [ExceptionGroup("", [AlreadyRunningError("gone")])]), 5),
    ],
)
def test_errors_end_in_their_code(
    face: Face, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def shares(config: object) -> list[object]:
        raise error

    face.__dict__["shares"] = shares
    assert run("list") == code
    assert failure(capsys) in ("gone", "interrupted")


def test_a_bug_is_one_line_unless_asked(face: Face, capsys: pytest.CaptureFixture[str]) -> None:
    def shares(config: object) -> list[object]:
        raise RuntimeError("oops\nsecond line")

    face.__dict__["shares"] = shares
    assert run("list") == 1
    assert failure(capsys).startswith("internal error (RuntimeError: oops second line)")
    assert run("--debug", "list") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    err = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", err)
    assert run("id") == 1
    assert err.getvalue() == ""


# --- resume data --------------------------------------------------------------------


def test_nothing_unfinished(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list-resume", "--data-dir", "none") == 0
    assert run("clean-resume", "--all", "--data-dir", "none") == 0
    assert capsys.readouterr().out == "No unfinished downloads.\n" * 2
    assert run("--data-dir", "none", "list-resume", "--json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_list_and_show(
    unfinished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("list-resume", "--data-dir", str(unfinished)) == 0
    out = capsys.readouterr().out
    assert f"| {HEX} | file.txt | 5.2 MB | 13/20  | 65%      |" in out
    monkeypatch.setenv("COLUMNS", "80")
    assert run("list-resume", "--data-dir", str(unfinished)) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert run("list-resume", "--data-dir", str(unfinished), "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["progress"] == 65
    assert run("show-resume", "--file-id", HEX[:8], "--data-dir", str(unfinished)) == 0
    assert "Completed Chunks: 13 (65%)\n" in capsys.readouterr().out
    assert run("show-resume", "--file-id", HEX[:8], "--json", "--data-dir", str(unfinished)) == 0
    assert json.loads(capsys.readouterr().out)["chunks_done"] == 13
    assert run("show-resume", "--file-id", "f" * 8, "--data-dir", str(unfinished)) == 1


def test_damaged_data_is_listed_and_named(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (unfinished / "resume" / f"{HEX}.resume").write_bytes(b"nonsense")
    assert run("list-resume", "--data-dir", str(unfinished)) == 0
    captured = capsys.readouterr()
    assert "damaged" in captured.out
    assert captured.err.startswith("furymesh: resume data ")
    assert run("list-resume", "--json", "--data-dir", str(unfinished)) == 0
    assert json.loads(capsys.readouterr().out)[0]["damaged"]
    assert run("clean-resume", "--all", "--data-dir", str(unfinished)) == 0
    assert not (unfinished / "resume" / f"{HEX}.resume").exists()


def test_clean_resume(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = unfinished.parent / f"file.txt.{HEX[:8]}.part"
    part.write_bytes(b"x")
    assert run("clean-resume", "--file-id", HEX[:8], "--data-dir", str(unfinished), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"file_id": HEX, "part": str(part)}
    assert not part.exists()
    assert run("list-resume", "--data-dir", str(unfinished)) == 0
    assert capsys.readouterr().out == "No unfinished downloads.\n"


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_clean_all_asks_at_a_terminal(
    unfinished: Path,
    answer: str,
    gone: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert run("clean-resume", "--all", "--data-dir", str(unfinished)) == (0 if gone else 1)
    captured = capsys.readouterr()
    assert "Remove 1 unfinished download and its partial file? [y/N] " in captured.err
    assert bool(captured.out) is gone, "stdout is for what was done"
    assert (unfinished / "resume" / f"{HEX}.resume").exists() is not gone


# --- downloads ----------------------------------------------------------------------


def completed(tmp_path: Path) -> Result:
    return Result(FILE_ID, tmp_path / "file.txt", 20 << 18, 1.0, 7 << 18, 13 << 18, 0, ())


def test_get_passes_everything_on(
    face: Face, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get(link: Link, config: object, **options: Any) -> Result:
        face.calls.append({"link": link, "config": config, **options})
        options["on_event"](Started(FILE_ID, "file.txt", 20 << 18, 20, 0, tmp_path, False))
        options["on_complete"](completed(tmp_path))
        return completed(tmp_path)

    face.__dict__["get"] = get
    link = f"furymesh:{HEX}?name=file.txt"
    code = run(
        *["get", link, "--peer", "192.0.2.1:1", "--peer", "[::1]:2", "--output", "out"],
        *["--overwrite", "--timeout", "5", "--max-download", "12M", "--json"],
        *["--max-connections", "7", "--no-space-check"],
    )
    assert code == 0
    (call,) = face.calls
    assert call["config"].node.max_connections == 7
    assert call["config"].storage.check_space is False
    assert call["link"] == Link.parse(link)
    assert call["peers"] == (Address("192.0.2.1", 1), Address("::1", 2))
    assert call["output"] == Path("out")
    assert call["overwrite"] is True
    assert call["timeout"] == 5.0
    assert call["max_download"] == 12_000_000
    assert call["max_upload"] is None
    assert call["seed"] is False
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["started", "complete"]


def test_resume_prints_its_first_line_and_takes_node_ids(
    face: Face, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def resume(file_id: FileId, config: object, **options: Any) -> Result:
        face.calls.append({"file_id": file_id, **options})
        options["on_event"](Started(FILE_ID, "file.txt", 20 << 18, 20, 13, tmp_path, True))
        return completed(tmp_path)

    face.__dict__["resume"] = resume
    peer_id = node_id_text(NODE_ID)
    places = ["--data-dir", str(unfinished)]
    assert run("resume", "--file-id", HEX[:8], "--peer-id", peer_id, *places) == 0
    assert face.calls[0]["file_id"] == FILE_ID
    assert face.calls[0]["only_nodes"] == (NODE_ID,)
    assert capsys.readouterr().out.splitlines()[:5] == [
        f"Resuming transfer for file {HEX}...",
        "Found resume data: 13/20 chunks already downloaded (65%)",
        "Requesting remaining 7 chunks...",
        "Progress: [====================] 100% Complete",
        f"File saved to {tmp_path / 'file.txt'}",
    ]


def test_an_interrupted_download_says_how_to_continue(
    face: Face, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get(link: Link, config: object, **options: Any) -> None:
        import os
        import signal

        import trio

        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    face.__dict__["get"] = get
    command = f"furymesh resume --file-id {HEX[:16]} --data-dir {unfinished}"
    assert run("get", HEX, "--data-dir", str(unfinished), "--json") == 130
    captured = capsys.readouterr()
    told = f"interrupted; progress kept; continue with: {command}"
    assert captured.err == f"furymesh: {told}\n"
    assert json.loads(captured.out) == {"event": "failed", "code": 130, "reason": told}
    assert run("get", HEX, "--data-dir", "elsewhere") == 130
    assert "before there was progress to keep" in failure(capsys)


def test_serving_after_completion_ends_well(
    face: Face, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get(link: Link, config: object, **options: Any) -> None:
        import os
        import signal

        import trio

        options["on_complete"](completed(tmp_path))
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    face.__dict__["get"] = get
    assert run("get", HEX, "--seed") == 0
    captured = capsys.readouterr()
    assert "File saved to" in captured.out
    assert captured.err == "Serving it to others now; press Ctrl-C to stop.\n"


def test_nobody_has_it_and_progress_is_kept(
    face: Face, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get(link: Link, config: object, **options: Any) -> None:
        raise UnavailableError("no peer has it")

    face.__dict__["get"] = get
    assert run("get", HEX, "--data-dir", str(unfinished)) == 3
    assert failure(capsys) == (
        f"no peer has it; continue with: furymesh resume --file-id {HEX[:16]}"
        f" --data-dir {unfinished}"
    )


# --- the others -----------------------------------------------------------------------


def test_id(face: Face, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("id", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "node_id": node_id_text(NODE_ID),
        "addresses": [],
        "running": False,
        "passphrase": False,
    }


def test_an_empty_list_is_kind(face: Face, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "Nothing is shared." in capsys.readouterr().out
    assert run("list", "--json") == 0
    assert capsys.readouterr().out == ""


def test_a_long_name_leaves_room_for_the_bar() -> None:
    from furymesh.cli.cmd_share import _label

    assert _label("/films/short.mkv") == "short.mkv"
    assert _label(f"/films/{'long-' * 40}end.mkv").endswith("end.mkv")
    assert len(_label(f"/films/{'long-' * 40}end.mkv")) == 24
    assert _label("https://host/a.iso?token=secret") == "a.iso"


def test_share_prints_the_documented_keys(
    face: Face, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def share(path: Path, config: object, **options: Any) -> SimpleNamespace:
        face.calls.append(options)
        return SimpleNamespace(
            file_id=FILE_ID,
            link=Link(FILE_ID, "n"),
            name="n\x1b",
            size=5,
            chunks=1,
            chunk_size=1 << 22,
            hash="sha256",
            path=path,
            place=str(path),
            encrypted=True,
            cached=False,
            served=False,
            skipped=("link\x07",),
        )

    face.__dict__["share"] = share
    arguments = ["share", "x", "--hash", "sha256", "--chunk-size", "4MiB", "--encrypt", "--private"]
    arguments += ["--tracker", "udp://t.example:6969", "--tracker", "https://t.example/announce"]
    assert run(*arguments, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    keys = {"file_id", "link", "name", "size", "chunks", "chunk_size", "hash"}
    assert record.keys() >= keys
    assert face.calls[0]["chunk_size"] == 4 << 20
    assert face.calls[0]["algorithm"] == "sha256"
    assert face.calls[0]["encrypt"] is True
    assert face.calls[0]["private"] is True
    named = ["udp://t.example:6969", "https://t.example:443/announce"]
    assert list(map(str, face.calls[0]["trackers"])) == named
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out
    assert f"Link: furymesh:{HEX}?name=n\n" in captured.out
    assert "Left out: link\\x07" in captured.err
    assert run("share", "x", "y") == 0
    assert capsys.readouterr().out.splitlines().count("Not served yet: run `furymesh node`.") == 1


@pytest.mark.parametrize(
    ("bad", "misfits", "told"),
    [
        ((3,), (), "1 bad chunk of 1,145"),
        (range(1145), ("film: 3 bytes instead of 4",), "1,145 bad chunks of 1,145, 1 misfit"),
        ((), ("a: missing", "b: not part of the share"), "2 misfits"),
    ],
)
def test_verify_counts_what_is_wrong_and_nothing_else(
    face: Face,
    bad: Sequence[int],
    misfits: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def verify(path: Path, text: str, config: object, **options: Any) -> Verified:
        return Verified(FILE_ID, path, 1145, tuple(bad), misfits)

    face.__dict__["verify"] = verify
    assert run("verify", "film", HEX) == 4
    line = f"film is not what it should be: {told}; fetch it again with `furymesh get`"
    assert failure(capsys) == line


@pytest.mark.parametrize(("bad", "code"), [((), 0), ((0, 1, 2, 7), 4)])
def test_verify(
    face: Face, bad: tuple[int, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def verify(path: Path, text: str, config: object, **options: Any) -> Verified:
        return Verified(FILE_ID, path, 20, bad, misfits=("a\x1b.txt: missing",) if bad else ())

    face.__dict__["verify"] = verify
    assert run("verify", "movie.mkv", HEX) == code
    out = capsys.readouterr().out
    told = "a\x1b.txt: missing\nBad chunks: 0-2, 7\n"
    assert out == (told if bad else "movie.mkv is intact: 20 chunks verified.\n")
    assert run("verify", "movie.mkv", HEX, "--json") == code
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is not bool(bad)
    assert record["bad"] == list(bad)


def test_completion_offers_ids_with_names(unfinished: Path) -> None:
    from furymesh.cli.completion import resume_ids

    def context(**params: object) -> Any:
        made = SimpleNamespace(params=params)
        made.find_root = lambda: SimpleNamespace(params={})
        return made

    assert resume_ids(context(data_dir=unfinished), "") == [(HEX[:16], "file.txt")]
    assert resume_ids(context(data_dir=unfinished), HEX[:20]) == [(HEX, "file.txt")]
    assert resume_ids(context(config=Path("gone.yaml")), "") == []
