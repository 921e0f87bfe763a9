"""The configuration file: found, read, refused with every line named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from furymesh.core.errors import ConfigError
from furymesh.core.ids import NodeId, node_id_text
from furymesh.node.config import CONFIG_VARIABLE, Config, load_config
from furymesh.node.config_file import MAX_CONFIG_BYTES

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory and a home without any configuration."""
    for name in ("cwd", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in (CONFIG_VARIABLE, "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)


def written(tmp_path: Path, text: str, name: str = "furymesh.yaml") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_need_no_file(tmp_path: Path) -> None:
    config = load_config()
    data = tmp_path / "home" / ".local" / "share" / "furymesh"
    assert config.data_dir == data
    assert config.transfer.resume_dir == data / "resume"
    assert config.api.socket == data / "control.sock"
    assert config.transfer.resume_save_interval == 30
    assert config.node.allow == ()


def test_the_config_of_the_repository_has_the_documented_defaults() -> None:
    config = load_config(REPOSITORY / "config.yaml")
    assert config == Config.at(REPOSITORY / "data")


def test_every_key_of_the_model_is_shown_in_the_config_of_the_repository() -> None:
    text = (REPOSITORY / "config.yaml").read_text("utf-8")
    for section in (None, "node", "storage", "transfer", "encryption", "discovery", "api"):
        model = Config if section is None else type(getattr(Config.at(Path("/d")), section))
        for key in model.model_fields:
            assert f"{key}:" in text, key


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interval() -> float:
        return load_config().transfer.resume_save_interval

    def with_interval(seconds: int) -> str:
        return f"transfer: {{resume_save_interval: {seconds}}}"

    written(tmp_path, with_interval(11), "home/.config/furymesh/config.yaml")
    assert interval() == 11
    written(tmp_path, with_interval(12), "cwd/config.yaml")
    assert interval() == 12
    named = written(tmp_path, with_interval(13), "named.yaml")
    monkeypatch.setenv(CONFIG_VARIABLE, str(named))
    assert interval() == 13
    asked = written(tmp_path, with_interval(14), "asked.yaml")
    assert load_config(asked).transfer.resume_save_interval == 14


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "data_dir: ./state\ntransfer: {resume_dir: ../elsewhere}\nstorage: {download_dir: ~/dl}",
        "conf/furymesh.yaml",
    )
    config = load_config(path)
    assert config.data_dir == tmp_path / "conf" / "state"
    assert config.transfer.resume_dir == tmp_path / "elsewhere"
    assert config.storage.download_dir == tmp_path / "home" / "dl"
    assert config.api.socket == tmp_path / "conf" / "state" / "control.sock"


def test_data_dir_argument_moves_what_lies_inside(tmp_path: Path) -> None:
    path = written(tmp_path, "data_dir: ./data\ntransfer: {resume_dir: ./data/resume}")
    config = load_config(path, tmp_path / "other")
    assert config.data_dir == tmp_path / "other"
    assert config.transfer.resume_dir == tmp_path / "other" / "resume"
    assert config.api.socket == tmp_path / "other" / "control.sock"


def test_data_dir_argument_leaves_what_lies_outside(tmp_path: Path) -> None:
    path = written(tmp_path, "transfer: {resume_dir: ./data/resume}")
    config = load_config(path, Path("other"))
    assert config.data_dir == tmp_path / "cwd" / "other"
    assert config.transfer.resume_dir == tmp_path / "data" / "resume"


def test_values_of_every_kind(tmp_path: Path) -> None:
    node_id = node_id_text(NodeId(bytes(range(32))))
    path = written(
        tmp_path,
        f"""
        node:
          listen: "[::1]:0"
          allow: [{node_id.upper()}]
          relay: on
          relay_rate: null
          max_upload: 12000
        storage: {{reserve: 1.5G}}
        discovery:
          lan:
          dht: {{enabled: false, bootstrap_nodes: ["node.example:6881"]}}
          trackers: ["https://t.example/key/announce", "udp://192.0.2.7:6969"]
          peers: ["{node_id}@192.0.2.7:7000"]
          relays: ["{node_id.upper()}@192.0.2.8:7000"]
        """,
    )
    config = load_config(path)
    assert config.node.listen == "[::1]:0"
    assert config.node.allow == (node_id,)
    assert config.node.relay is True
    assert config.node.relay_rate is None
    assert config.node.max_upload == "12000"
    assert config.storage.reserve == "1.5G"
    assert config.discovery.lan.enabled is True
    assert config.discovery.dht.bootstrap_nodes == ("node.example:6881",)
    assert config.discovery.trackers == (
        "https://t.example:443/key/announce",
        "udp://192.0.2.7:6969",
    )
    assert config.discovery.peers == (f"{node_id}@192.0.2.7:7000",)
    assert config.discovery.relays == (f"{node_id}@192.0.2.8:7000",)


@pytest.mark.parametrize("text", ["", "# nothing\n", "node:\nsync:\n", "{}", "sync: {}"])
def test_empty_files_and_sections_mean_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text)).node == Config.at(tmp_path).node


def test_every_bad_key_is_named_with_its_line(tmp_path: Path) -> None:
    told = refusal(
        tmp_path,
        "nod: 1\ntransfer:\n  resume_dri: x\n  resume_save_interval: 0\n  timeout: .inf\n"
        "node:\n  relay: maybe\n  listen: 7654\n",
    )
    assert "line 1: unknown key nod (did you mean node?)" in told
    assert "line 3: unknown key transfer.resume_dri (did you mean resume_dir?)" in told
    assert "line 4: transfer.resume_save_interval must be at least 1" in told
    assert "line 5: transfer.timeout must be a finite number" in told
    assert "line 7: node.relay must be true or false" in told
    assert "line 8: node.listen: must be HOST:PORT in quotes" in told


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &x [1]\nsync: *x", "line 2: aliases"),
        ("node: {relay: true}\nnode: {}", "line 2: the key node is given twice"),
        ("node: {relay: true, relay: false}", "the key relay is given twice"),
        ("- 1", "expected keys and values"),
        ("node:\n\trelay: true", "line 2: a tab: indent with spaces"),
        ("node: [1\napi: {}", "line 2: not valid YAML: "),
        ("node: [", "line 1"),
        ("\x00", "not a text file"),
        ("[" * 20_000, "nested too deeply"),
        ("node: 2001-99-99", "not valid"),
        ("a: !!python/object:os.system x", "python/object"),
        ('node: {max_connections: !!int ""}', "tags like tag:yaml.org,2002:int are not"),
        ("node: {relay: !!bool x}", "line 1: tags"),
        ("data_dir: !!timestamp x", "line 1: tags"),
        ("! node: {}", "line 1: tags"),
        ('data_dir: "a\\ud800b"', "must be a path"),
        ('data_dir: "~\\ud800"', "must be a path"),
        ('node: {psk_file: "\\udfff"}', "must be a path"),
        ("? [a]\n: 1", "plain word"),
        ("1: 2", "unknown key 1"),
        ("node: 3", "node must be a section"),
        ("discovery: {lan: []}", "discovery.lan must be a section"),
        ("discovery: {peers: x}", "discovery.peers must be a list"),
        ("discovery: {trackers: [7]}", "discovery.trackers.0: must be the URL of a tracker"),
        ("discovery: {trackers: [ftp://x]}", "'ftp://x' is not a tracker: write http://"),
        (f"discovery: {{trackers: [{'udp://t:1, ' * 21}]}}", "discovery.trackers"),
        ("discovery: {peers: [nonsense]}", "line 1: discovery.peers.0: 'nonsense' is not"),
        ("discovery: {relays: ['192.0.2.7:7']}", "must name the relay's node id"),
        ("node: {relay_rate: 0}", "at least 1 byte"),
        ("node: {relay_sessions: 0}", "at least 1"),
        ("node: {allow: [short]}", "'short' is not a node id"),
        ("node: {listen: 'x@h:1'}", "node.listen"),
        ("node: {max_upload: 0}", "at least 1 byte"),
        ("node: {max_upload: true}", "must be a size"),
        ("node: {max_connections: 1.5}", "must be a whole number"),
        ("storage: {reserve: lots}", "'lots' is not a size"),
        ("transfer: {resume_dir: ''}", "must be a path"),
        ('transfer: {resume_dir: "a\\0b"}', "must be a path"),
        ("api: {socket: '~nosuchuser/x'}", "no such home"),
        ("encryption: {default_hash: md5}", "'blake3' or 'sha256'"),
        ("sync: {sync_rate: 0}", "at least 1"),
        ("sync: {server: nowhere}", "'nowhere' is not an address"),
        ("data_dir: [1]", "data_dir: must be a path"),
        ('"\\e[31m": 1', "\\x1b[31m"),
    ],
)
def test_refusals(tmp_path: Path, text: str, part: str) -> None:
    assert part in refusal(tmp_path, text)


def test_more_problems_than_fit_are_counted(tmp_path: Path) -> None:
    assert "and 12 more" in refusal(tmp_path, "".join(f"bad{n}: 1\n" for n in range(20)))


def test_unreadable_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="not a usable path"):
        load_config(Path("a\0b"))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_config()


def test_a_dangling_link_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "cwd" / "config.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="no such file"):
        load_config()


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in refusal(tmp_path, "#" * (MAX_CONFIG_BYTES + 1))


def test_every_truncation_is_accepted_or_refused_in_one_line(tmp_path: Path) -> None:
    text = (REPOSITORY / "config.yaml").read_text("utf-8")
    # Comments say nothing; without them every cut is worth a look.
    text = yaml.safe_dump(yaml.safe_load(text))
    for end in range(0, len(text), 3):
        path = written(tmp_path, text[:end])
        told = ""
        try:
            load_config(path)
        except ConfigError as error:
            told = str(error)
        assert "\n" not in told
