"""The configuration: one YAML file, validated whole, with working defaults.

The file is untrusted. It is bounded in size, read without constructing any
object but plain ones, and refused as a whole: `load_config` either returns a
frozen `Config` or raises one ConfigError that names every bad key with its line
and what to write instead. Sizes, rates, addresses and node ids stay texts, but
texts that are known to parse; paths are absolute.

Relative paths in the file are relative to the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from furymesh.core.errors import ConfigError, UsageError
from furymesh.core.ids import node_id_text, parse_node_id
from furymesh.core.link import Address, Tracker
from furymesh.core.paths import shown
from furymesh.core.units import parse_size
from furymesh.node.config_file import ConfigFile, describe, read_config_file

CONFIG_VARIABLE = "FURYMESH_CONFIG"
FILE_NAME = "config.yaml"
DEFAULT_LISTEN = "0.0.0.0:7654"
DEFAULT_SYNC_LISTEN = "0.0.0.0:7656"
DEFAULT_RESERVE = "64MiB"
# Run for years by those who make libtorrent, BitTorrent and Transmission.
PUBLIC_BOOTSTRAP = (
    "dht.libtorrent.org:25401",
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
)
MAX_SECONDS = 7 * 86400  # longer than anybody waits; keeps every clock sum finite
MAX_RELAYS = 8  # a live link to each; one would do, others stand in for it
MAX_LISTED = 1000  # peers, nodes or bootstrap nodes; more is not written by hand
MAX_TRACKERS = 20  # each is asked by a task or two, and told of every share

T = TypeVar("T")


def _path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or not _can_be_path(value):
        raise ValueError("must be a path, like ./data")
    try:
        expanded = Path(value).expanduser()
    except RuntimeError:
        raise ValueError("starts with ~ but there is no such home directory") from None
    base = (info.context or {}).get("base", Path())
    return Path(os.path.normpath(base / expanded))


def _can_be_path(text: str) -> bool:
    """Whether the system can be asked about `text`: YAML can name what no path holds."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _size(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a size, like 64MiB or 12M")
    _checked(parse_size, str(value))
    return str(value)


def _rate(value: str) -> str:
    if parse_size(value) < 1:
        raise ValueError("must be at least 1 byte a second; leave it out for no limit")
    return value


def _address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('must be an address in quotes, like "192.0.2.7:7654"')
    return str(_checked(Address.parse, value))


def _listen_address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('must be HOST:PORT in quotes, like "0.0.0.0:7654"')
    address = _checked(lambda text: Address.parse(text, any_port=True), value)
    if address.node_id is not None:
        raise ValueError("must be HOST:PORT without a node id")
    return str(address)


def _tracker(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('must be the URL of a tracker, like "http://192.0.2.7:6969/announce"')
    return str(_checked(Tracker.parse, value))


def _relay_address(value: str) -> str:
    if Address.parse(value).node_id is None:
        raise ValueError('must name the relay\'s node id, like "node-id@192.0.2.7:7654"')
    return value


def _node_id(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a node id, as `furymesh id` prints it")
    return node_id_text(_checked(parse_node_id, value))


def _checked(parse: Callable[[str], T], text: str) -> T:
    """`parse(text)`, its complaint in the form pydantic collects."""
    try:
        return parse(text)
    except UsageError as error:
        raise ValueError(str(error)) from None


ConfigPath = Annotated[Path, BeforeValidator(_path)]
SizeText = Annotated[str, BeforeValidator(_size)]
RateText = Annotated[str, BeforeValidator(_size), AfterValidator(_rate)]
PeerAddress = Annotated[str, BeforeValidator(_address)]
RelayAddress = Annotated[PeerAddress, AfterValidator(_relay_address)]
ListenAddress = Annotated[str, BeforeValidator(_listen_address)]
ListedNode = Annotated[str, BeforeValidator(_node_id)]
TrackerUrl = Annotated[str, BeforeValidator(_tracker)]
Addresses = Annotated[tuple[PeerAddress, ...], Field(max_length=MAX_LISTED)]
Seconds = Annotated[float, Field(ge=1, le=MAX_SECONDS, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeConfig(_Section):
    """The long-lived peer. Rates are texts like 12M, None for no limit."""

    listen: ListenAddress = DEFAULT_LISTEN
    allow: Annotated[tuple[ListedNode, ...], Field(max_length=MAX_LISTED)] = ()
    relay: bool = False
    relay_rate: RateText | None = "10M"
    relay_sessions: Annotated[int, Field(ge=1, le=10_000)] = 64
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 200
    max_upload: RateText | None = None
    max_download: RateText | None = None
    psk_file: ConfigPath | None = None

    @property
    def private(self) -> bool:
        """Whether the swarm is a private one: it has a pre-shared key or an allow-list."""
        return self.psk_file is not None or bool(self.allow)


class StorageConfig(_Section):
    """Where downloads go, and how much of every disk stays free."""

    reserve: SizeText = DEFAULT_RESERVE
    check_space: bool = True
    download_dir: ConfigPath = Path()


class TransferConfig(_Section):
    """Downloads and their resume data. Times are seconds, rates texts like 12M."""

    resume_enabled: bool = True
    resume_dir: ConfigPath
    resume_save_interval: Seconds = 30.0
    timeout: Seconds = 60.0
    max_upload: RateText | None = None
    max_download: RateText | None = None
    private_mirrors: bool = False


class EncryptionConfig(_Section):
    """What `furymesh share` does unless told otherwise, and where the passphrase is."""

    default_hash: Literal["blake3", "sha256"] = "blake3"
    encrypt_by_default: bool = False
    passphrase_file: ConfigPath | None = None


class LanConfig(_Section):
    """Finding peers on the local network."""

    enabled: bool = True


class DhtConfig(_Section):
    """Finding peers through BitTorrent's DHT, where libtorrent is installed.

    With bootstrap nodes whose addresses are all private, or none, it is a DHT of one's own.
    """

    enabled: bool = True
    bootstrap_nodes: Addresses = PUBLIC_BOOTSTRAP
    port: Annotated[int, Field(ge=0, lt=1 << 16)] = 0


class DiscoveryConfig(_Section):
    """How peers are found; `peers` are asked about everything, `trackers` told of it.

    `port_mapping` None: the router is asked to let others in, but not to a private swarm.
    """

    lan: LanConfig = LanConfig()
    dht: DhtConfig = DhtConfig()
    trackers: Annotated[tuple[TrackerUrl, ...], Field(max_length=MAX_TRACKERS)] = ()
    peers: Addresses = ()
    relays: Annotated[tuple[RelayAddress, ...], Field(max_length=MAX_RELAYS)] = ()
    port_mapping: bool | None = None


class SyncConfig(_Section):
    """One-way folder sync: what either end does unless its options say otherwise."""

    archive: ConfigPath | None = None
    # A server,
    listen: ListenAddress = DEFAULT_SYNC_LISTEN
    sync_rate: Annotated[int, Field(ge=1, le=MAX_SECONDS)] = 300
    max_sessions: Annotated[int, Field(ge=1, le=64)] = 1
    allow: Annotated[tuple[ListedNode, ...], Field(max_length=MAX_LISTED)] = ()
    # and a client.
    client_id: Annotated[str, Field(max_length=64)] | None = None
    server: PeerAddress | None = None
    exclude: Annotated[tuple[str, ...], Field(max_length=MAX_LISTED)] = ()


class ApiConfig(_Section):
    """The control API through which commands reach a running node."""

    enabled: bool = True
    socket: ConfigPath


class Config(_Section):
    """Everything configurable; what is left out of the file has its default.

    `transfer.resume_dir` and `api.socket` lie in `data_dir` unless given.
    """

    data_dir: ConfigPath
    node: NodeConfig = NodeConfig()
    storage: StorageConfig = StorageConfig()
    transfer: TransferConfig
    encryption: EncryptionConfig = EncryptionConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    sync: SyncConfig = SyncConfig()
    api: ApiConfig

    @classmethod
    def at(cls, data_dir: Path) -> Config:
        """The defaults, with this data directory."""
        return cls.model_validate({"data_dir": data_dir})

    @model_validator(mode="before")
    @classmethod
    def _place_in_data_dir(cls, raw: Any, info: ValidationInfo) -> Any:
        try:
            data_dir = _path(raw["data_dir"], info)
        except (KeyError, TypeError, ValueError):
            data_dir = Path()  # the field itself is about to be reported
        if not isinstance(raw, dict):
            return raw
        filled = dict(raw)
        for section, key, name in (
            ("transfer", "resume_dir", "resume"),
            ("api", "socket", "control.sock"),
        ):
            given = filled.get(section, {})
            if isinstance(given, dict) and key not in given:
                filled[section] = {**given, key: data_dir / name}
        return filled


def load_config(path: Path | None = None, data_dir: Path | None = None) -> Config:
    """The configuration in force; raises ConfigError.

    `path` is the file that was asked for; otherwise $FURYMESH_CONFIG,
    ./config.yaml and config.yaml in the user's configuration directory are
    looked for, in this order. `data_dir` replaces the file's. Directories that
    the file places inside its own data_dir move with it.
    """
    found = _find(path)
    file = ConfigFile(None, {}, {}) if found is None else read_config_file(found)
    values = dict(file.values)
    base = _absolute(file.path.parent) if file.path else Path()
    if "data_dir" not in values:
        values["data_dir"] = Path(platformdirs.user_data_dir("furymesh"))
    try:
        config = Config.model_validate(values, context={"base": base})
    except ValidationError as error:
        raise ConfigError(describe(file, error, Config)) from None
    return config if data_dir is None else _moved(config, _absolute(data_dir))


def _find(path: Path | None) -> Path | None:
    if path is not None:
        return path
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    user_dir = Path(platformdirs.user_config_dir("furymesh"))
    for candidate in (Path(FILE_NAME), user_dir / FILE_NAME):
        # lexists: a file that is there but cannot be read must not be passed over.
        if os.path.lexists(candidate):
            return candidate
    return None


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path.expanduser()))
    except (OSError, RuntimeError):
        raise ConfigError(
            f"{shown(str(path))} cannot be made an absolute path: write it in full"
        ) from None


def _moved(config: Config, data_dir: Path) -> Config:
    """`config` with another data_dir, and with what lay in the old one."""

    def move(path: Path) -> Path:
        inside = path.is_relative_to(config.data_dir)
        return data_dir / path.relative_to(config.data_dir) if inside else path

    transfer = config.transfer.model_copy(update={"resume_dir": move(config.transfer.resume_dir)})
    api = config.api.model_copy(update={"socket": move(config.api.socket)})
    return config.model_copy(update={"data_dir": data_dir, "transfer": transfer, "api": api})
