"""Links and addresses: the texts people pass on.

``furymesh:<64 hex digits>?name=<hint>&peer=<address>&node=<node id>&tracker=<URL>
&mirror=<URL>&private=1&key=<base64url>``.
A link grants access to a share, and with a key to its content, so the key appears in
no `repr` and in no message.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, unquote

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId, NodeId, node_id_text, parse_file_id, parse_node_id
from furymesh.core.sealing import KEY_SIZE
from furymesh.core.secrets import quoted

SCHEME = "furymesh:"
MAX_LINK_LENGTH = 16 * 1024  # far above any honest link, and nothing to parse for long
MAX_LINK_PEERS = 64  # hints to start from; the swarm tells of the others
MAX_LINK_TRACKERS = 8  # each is asked by a task; one that works is enough
MAX_TRACKER_LENGTH = 512  # characters; those in use have a tenth
MAX_LINK_MIRRORS = 8  # each is read from by a few requests at once; one is enough
MAX_MIRROR_LENGTH = 2048  # characters; signed URLs of object stores have half of it
MANIFEST_SUFFIX = ".furymesh"  # of the file beside a mirror's
MAX_HOST_LENGTH = 253  # RFC 1035, section 2.3.4

# IFNAMSIZ is 16. Resolvers take an empty label in an interface's name for one of a host.
_SCOPE = r"%(?=[^\]]{1,15}\])[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_BRACKETED = re.compile(rf"\[([0-9A-Fa-f:.]+(?:{_SCOPE})?)\]")
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # at most 63, RFC 1035 again
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
# What may be in a path and a query by RFC 3986, every % with its two digits.
_URL_PATH = r"/(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_TRACKER = re.compile(rf"(https?|udp)://(\[[0-9A-Fa-f:.]*\]|[^/:?#@\s]*)(:[0-9]+)?({_URL_PATH})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "sftp": ":22", "udp": ""}
_MIRROR = re.compile(
    rf"(https?|sftp)://(?:([A-Za-z0-9._-]+)@)?(\[[0-9A-Fa-f:.]*\]|[^/:?#@\s]*)(:[0-9]+)?({_URL_PATH})"
)
_PASSWORD = re.compile(r"[^/]*//[^/@]*:[^/@]*@")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a peer listens, and who it must be if `node_id` is given."""

    host: str
    port: int
    node_id: NodeId | None = None

    @classmethod
    def parse(cls, text: str, *, any_port: bool = False) -> Address:
        """Read host:port, [v6]:port or node-id@host:port; raises UsageError.

        Port 0, "any free one", is accepted only with `any_port`.
        """
        identity, at, place = text.strip().rpartition("@")
        node_id = parse_node_id(identity) if at else None
        host, colon, port_text = place.rpartition(":")
        if not colon or not port_text.isascii() or not port_text.isdigit():
            raise _bad_address(text, "write host:port, [v6]:port or node-id@host:port")
        port = int(port_text) if len(port_text) <= 5 else 1 << 16
        if not (0 if any_port else 1) <= port < 1 << 16:
            least = "0, for any free one," if any_port else "1"
            raise _bad_address(text, f"a port is a number from {least} to 65535")
        return cls(_checked_host(host, text), port, node_id)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        identity = f"{node_id_text(self.node_id)}@" if self.node_id else ""
        return f"{identity}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tracker:
    """Where a BitTorrent tracker answers. No `repr` shows the path: it may hold a passkey."""

    scheme: str  # http, https or udp
    address: Address
    path: str = field(default="", repr=False)  # with the query, if there is one

    @classmethod
    def parse(cls, text: str) -> Tracker:
        """Read the URL of a tracker; raises UsageError."""
        text = text.strip()
        parts = _TRACKER.fullmatch(text) if len(text) <= MAX_TRACKER_LENGTH else None
        if parts is None:
            raise UsageError(
                f"{quoted(text)} is not a tracker: write http://host/announce, https://host/announce"
                f" or udp://host:port, {MAX_TRACKER_LENGTH} characters at most"
            )
        scheme, host, port, path = parts.groups()
        return cls(scheme, Address.parse(host + (port or _DEFAULT_PORTS[scheme])), path or "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{self.path}"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a server has the content: a file, or the folder with all of a share's files.

    No `repr` shows the path: its query may be what opens it.
    """

    scheme: str  # http, https or sftp
    address: Address
    path: str = field(repr=False)  # as in the URL, with the query, if there is one
    user: str = ""  # of an SFTP server

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """Read the URL of a mirror; raises UsageError."""
        text = text.strip()
        if _PASSWORD.match(text):
            raise UsageError(
                "a mirror's URL must not hold a password: whoever gets the link would have it"
            )
        parts = _MIRROR.fullmatch(text) if len(text) <= MAX_MIRROR_LENGTH else None
        if parts is None:
            raise UsageError(
                f"{quoted(text.rpartition('@')[2])} is not a mirror: write https://host/path, http://"
                f"host/path or sftp://user@host/path, {MAX_MIRROR_LENGTH} characters at most"
            )
        scheme, user, host, port, path = parts.groups()
        if user and scheme != "sftp":
            raise UsageError("only an SFTP mirror has a user before its host: take it out")
        if "?" in path and scheme == "sftp":
            raise UsageError("an SFTP mirror has no query: write a ? in its path as %3F")
        return cls(scheme, Address.parse(host + (port or _DEFAULT_PORTS[scheme])), path, user or "")

    @property
    def place(self) -> str:
        """The URL without its query: safe to show."""
        return str(self).partition("?")[0]

    @property
    def authority(self) -> str:
        """Host and port, the port only if it is not the usual one."""
        return str(self.address).removesuffix(_DEFAULT_PORTS[self.scheme])

    @property
    def name(self) -> str:
        """Of what is there, by the last part of the path; untrusted, and may be empty."""
        return unquote(self.path.partition("?")[0].rstrip("/").rpartition("/")[2])

    @property
    def manifest(self) -> Mirror:
        """Where the manifest of what is here may be."""
        base, mark, query = self.path.partition("?")
        return replace(self, path=f"{base.rstrip('/')}{MANIFEST_SUFFIX}{mark}{query}")

    def below(self, path: str) -> Mirror:
        """Where a file lies whose path in a shared folder is `path`; "" is the mirror itself."""
        if not path:
            return self
        base, mark, query = self.path.partition("?")
        return replace(self, path=f"{base.rstrip('/')}/{quote(path)}{mark}{query}")

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Link:
    """A share, and optionally a name hint (untrusted), whom to ask and the key.

    `nodes` are peers to ask as well, wherever they are: who has another address each
    day is named so.
    """

    file_id: FileId
    name: str | None = None
    peers: tuple[Address, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    trackers: tuple[Tracker, ...] = ()
    nodes: tuple[NodeId, ...] = ()
    private: bool = False  # announced nowhere but where the link says
    mirrors: tuple[Mirror, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read a link or a bare file id; raises UsageError. Unknown fields are ignored."""
        text = text.strip()
        if len(text) > MAX_LINK_LENGTH:
            raise UsageError(f"the link is longer than {MAX_LINK_LENGTH} characters")
        if text[: len(SCHEME)].lower() == SCHEME:
            text = text[len(SCHEME) :]
        identity, _, query = text.partition("?")
        try:
            file_id = parse_file_id(identity)
        except UsageError:
            what = f"{quoted(identity)} is neither a link nor a file id"
            if identity and set(identity.lower()) <= set("0123456789abcdef"):
                what += f", for it has {len(identity)} hex digits instead of 64: copy it again"
            else:
                what += f": expected 64 hex digits, with or without {SCHEME} before them"
            raise UsageError(what) from None
        try:
            query.encode()  # an argument or a JSON string may hold lone surrogates
            fields = parse_qsl(query, keep_blank_values=True, errors="strict")
        except ValueError:
            raise UsageError("the link's text after the ? is not UTF-8: copy it again") from None
        names = [value for key, value in fields if key == "name"]
        peers = tuple(Address.parse(value) for key, value in fields if key == "peer")
        nodes = tuple(parse_node_id(value) for key, value in fields if key == "node")
        keys = [value for key, value in fields if key == "key"]
        trackers = tuple(Tracker.parse(value) for key, value in fields if key == "tracker")
        mirrors = tuple(Mirror.parse(value) for key, value in fields if key == "mirror")
        if len(names) > 1 or len(keys) > 1:
            raise UsageError("the link has two names or two keys: copy it again")
        if len(peers) + len(nodes) > MAX_LINK_PEERS:
            raise UsageError(f"the link names more than {MAX_LINK_PEERS} peers: take some out")
        if len(trackers) > MAX_LINK_TRACKERS:
            raise UsageError(
                f"the link names more than {MAX_LINK_TRACKERS} trackers: take some out"
            )
        if len(mirrors) > MAX_LINK_MIRRORS:
            raise UsageError(f"the link names more than {MAX_LINK_MIRRORS} mirrors: take some out")
        return cls(
            file_id,
            names[0] or None if names else None,
            peers,
            _parse_key(keys[0]) if keys else None,
            trackers,
            nodes,
            ("private", "1") in fields,
            mirrors,
        )

    @property
    def node_ids(self) -> frozenset[NodeId]:
        """The ids of all peers that are known by one, with an address or without."""
        return frozenset((*self.nodes, *(peer.node_id for peer in self.peers if peer.node_id)))

    @property
    def text(self) -> str:
        """The link to pass on, key included: whoever sees it can fetch and read."""
        fields = [f"name={quote(self.name, safe='')}"] if self.name else []
        fields += [f"peer={quote(str(peer), safe=':@[]')}" for peer in self.peers]
        fields += [f"tracker={quote(str(tracker), safe=':@[]/')}" for tracker in self.trackers]
        fields += [f"node={node_id_text(node)}" for node in self.nodes]
        fields += [f"mirror={quote(str(mirror), safe=':@[]/')}" for mirror in self.mirrors]
        if self.private:
            fields.append("private=1")
        if self.key is not None:
            fields.append("key=" + base64.urlsafe_b64encode(self.key).decode().rstrip("="))
        return SCHEME + self.file_id.hex() + ("?" + "&".join(fields) if fields else "")


def _parse_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    # Re-encoding refuses the spare bits of the last character.
    if len(key) != KEY_SIZE or base64.urlsafe_b64encode(key).decode().rstrip("=") != text:
        raise UsageError("the key in the link is damaged: copy the whole link again")
    return key


def _checked_host(host: str, text: str) -> str:
    if host.startswith("["):
        bracketed = _BRACKETED.fullmatch(host)
        try:
            return str(ipaddress.IPv6Address(bracketed[1] if bracketed else ""))
        except ValueError:
            raise _bad_address(text, "the part in brackets is not an IPv6 address") from None
    if ":" in host:
        raise _bad_address(text, "put an IPv6 address in brackets, as in [::1]:7000")
    if len(host) > MAX_HOST_LENGTH or not _HOST.fullmatch(host):
        raise _bad_address(text, "the host is not a name or an IP address")
    return host.lower()


def _bad_address(text: str, advice: str) -> UsageError:
    return UsageError(f"{quoted(text)} is not an address: {advice}")
