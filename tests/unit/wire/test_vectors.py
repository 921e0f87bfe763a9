"""The golden vectors: what the code writes, and what anybody must read in them.

The first test fails on any change of a format. The others rebuild the expected
bytes from the specification alone, with struct, hashlib, blake3 and an encoder
of protobuf's wire format of a few lines, and read the vectors back.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import importlib.util
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from furymesh.core.bitfield import chunks_of, from_bytes
from furymesh.core.errors import ProtocolError, UsageError
from furymesh.core.ids import FileId, parse_node_id
from furymesh.core.link import Link
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import Sealer
from furymesh.wire import codec, noise, records
from furymesh.wire import messages as m
from furymesh.wire.authentication import check_payload
from furymesh.wire.records import Opening
from furymesh.wire.session import Session, State
from tests.protobuf import length_delimited, tag, varint

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors"
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", VECTORS / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def cases(name: str, key: str) -> pytest.MarkDecorator:
    """The cases of a list in a vector file, as parameters of a test."""
    listed = load(name)[key]
    ids = [str(case.get("name") or case.get("why") or i) for i, case in enumerate(listed)]
    return pytest.mark.parametrize("case", listed, ids=ids)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# --- the code still writes them -----------------------------------------------


def test_the_code_produces_the_committed_vectors() -> None:
    for name, text in generator().rendered().items():
        committed = (VECTORS / name).read_text(encoding="utf-8")
        assert text == committed, f"{name}: run tests/vectors/make_vectors.py if this is meant"


def test_the_example_in_the_specification_is_the_session_vector() -> None:
    made = generator()
    assert made.BEGIN + made.example(load("session.json")) + made.END in PROTOCOL


# --- identifiers, links, bitfields --------------------------------------------


@cases("ids.json", "shares")
def test_tags_and_proofs(case: Any) -> None:
    file_id, handshake_hash = unhex(case["file_id"]), unhex(case["handshake_hash"])
    tag = blake3(file_id, derive_key_context="furymesh 1 discovery tag").digest()
    assert tag.hex() == case["tag"]
    key = blake3(file_id, derive_key_context="furymesh 1 proof of file id").digest()
    for role in ("initiator", "responder"):
        proof = blake3(handshake_hash + role.encode(), key=key).hexdigest()
        assert proof == case[f"{role}_proof"]


@cases("ids.json", "nodes")
def test_node_ids(case: Any) -> None:
    private = Ed25519PrivateKey.from_private_bytes(unhex(case["seed"]))
    assert private.public_key().public_bytes_raw().hex() == case["node_id"]
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    number = int(case["node_id"], 16) << 4  # 256 bits in 52 digits of 5
    digits = [alphabet[number >> 5 * place & 31] for place in range(51, -1, -1)]
    assert "".join(digits) == case["text"]
    assert parse_node_id(case["text"]).hex() == case["node_id"]


@cases("links.json", "links")
def test_links(case: Any) -> None:
    link = Link.parse(case["text"])
    assert link.text == case["text"]
    assert link.file_id.hex() == case["file_id"]
    assert link.name == case["name"]
    assert (link.key.hex() if link.key else None) == case["key"]
    assert [node.hex() for node in link.nodes] == case["nodes"]
    assert [
        {
            "text": str(peer),
            "host": peer.host,
            "port": peer.port,
            "node_id": peer.node_id.hex() if peer.node_id else None,
        }
        for peer in link.peers
    ] == case["peers"]


def test_other_spellings_of_links_and_refused_ones() -> None:
    vectors = load("links.json")
    for canonical, other in vectors["same"]:
        assert Link.parse(other).text == canonical
    for text in vectors["refused"]:
        with pytest.raises(UsageError):
            Link.parse(text)


@cases("bitfields.json", "bitfields")
def test_bitfields(case: Any) -> None:
    raw = bytearray(-(-case["chunk_count"] // 8))
    for chunk in case["chunks"]:
        raw[chunk // 8] += 1 << chunk % 8
    assert raw.hex() == case["bytes"]
    mask = from_bytes(bytes(raw), case["chunk_count"])
    assert mask is not None
    assert list(chunks_of(mask)) == case["chunks"]


# --- manifests ----------------------------------------------------------------


def content_of(case: Any) -> bytes:
    content = case["content"]
    if isinstance(content, str):
        return unhex(content)
    return bytes((7 * i + i // 256) % 256 for i in range(content))


def seal(key: bytes, index: int, plain: bytes) -> bytes:
    """A sealed chunk, from the specification."""
    cipher_key = blake3(key, derive_key_context="furymesh 1 content encryption key").digest()
    nonce_key = blake3(key, derive_key_context="furymesh 1 content nonce key").digest()
    label = struct.pack(">Q", index)
    nonce = blake3(label + plain, key=nonce_key).digest(12)
    return nonce + AESGCM(cipher_key).encrypt(nonce, plain, label)


def table_of(entries: Any) -> bytes:
    out = b""
    for path, kind, size in sorted(entries, key=lambda entry: entry[0].encode()):
        raw = path.encode()
        out += struct.pack(">BH", kind, len(raw)) + raw
        out += b"" if kind == 2 else struct.pack(">Q", size)
    return out


@cases("manifests.json", "manifests")
def test_manifests(case: Any) -> None:
    digest: Callable[[bytes], bytes] = {
        "blake3": lambda data: blake3(data).digest(),
        "sha256": lambda data: hashlib.sha256(data).digest(),
    }[case["hash"]]
    content, size = content_of(case), case["chunk_size"]
    key = unhex(case["key"]) if case["key"] else None
    folder = case["entries"] is not None
    table = table_of(case["entries"]) if folder else b""
    room = size - 28 if key else size
    chunks = [content[at : at + room] for at in range(0, len(content), room)]
    check = bytes(16)
    if key:
        chunks = [seal(key, index, chunk) for index, chunk in enumerate(chunks)]
        ends = [[chunk[:28].hex(), chunk[-16:].hex()] for chunk in chunks]
        assert ends == case["sealed_ends"]
        table = seal(key, 2**63, table) if folder else b""
        check = blake3(key, derive_key_context="furymesh 1 content key check").digest(16)
    digests = b"".join(map(digest, chunks))
    pages = [
        part[at : at + 65536] for part in (table, digests) for at in range(0, len(part), 65536)
    ]
    stream = sum(map(len, chunks))
    header = b"FMH1" + bytes([1, 1 if case["hash"] == "blake3" else 2, folder, bool(key)])
    header += struct.pack(">QIQ", stream, size, len(table)) + check
    header += b"".join(map(digest, pages))
    assert stream == case["stream_size"]
    assert [page.hex() for page in pages] == case["pages"]
    assert header.hex() == case["header"]
    assert digest(header).hex() == case["file_id"]

    manifest = Manifest(header, FileId(unhex(case["file_id"])))
    for number, page in enumerate(pages):
        manifest.add_page(number, page)
    assert manifest.complete
    assert all(manifest.matches(index, chunk) for index, chunk in enumerate(chunks))
    sealer = Sealer(key) if key else None
    layout = manifest.layout(sealer)
    assert layout.plain_size == len(content)
    if folder:
        entries = manifest.entries(sealer)
        assert [[e.path, e.kind.value, e.size] for e in entries] == case["entries"]
    if sealer:
        opened = [sealer.open(index, chunk) for index, chunk in enumerate(chunks)]
        assert b"".join(opened) == content


# --- messages -----------------------------------------------------------------


# Type → its field in Frame and its own fields, in order of their numbers.
SCHEMA: dict[str, tuple[int, tuple[str, ...]]] = {
    "Hello": (
        1,
        (
            "version",
            "min_version",
            "features*",
            "instance",
            "listen_port",
            "agent",
            "observed_ip",
            "observed_port",
        ),
    ),
    "Join": (2, ("share", "tag", "proof", "leaves")),
    "Refuse": (3, ("share", "reason")),
    "Leave": (4, ("share", "reason")),
    "GetManifest": (5, ("share", "header", "pages*")),
    "ManifestHeader": (6, ("share", "header", "name", "executable")),
    "ManifestPage": (7, ("share", "page", "data")),
    "Bitmap": (8, ("share", "first", "bits", "all")),
    "Have": (9, ("share", "chunks*")),
    "Lost": (10, ("share", "chunks*")),
    "Request": (11, ("share", "chunks*")),
    "Data": (12, ("share", "chunk", "offset", "length")),
    "Cancel": (13, ("share", "chunks*")),
    "Reject": (14, ("share", "chunks*", "reason", "suggest*")),
    "Peers": (15, ("share", "peers*")),
    "Ping": (16, ("nonce",)),
    "Pong": (17, ("nonce",)),
    "Goodbye": (18, ("reason", "detail")),
    "Rendezvous": (19, ("tags*",)),
    "Introduction": (20, ("tag", "node_id", "instance", "ip", "port")),
    "Reach": (21, ("node_id", "instance")),
    "Summons": (22, ("token", "node_id", "instance", "ip", "port")),
    "Answer": (23, ("token",)),
    "Spliced": (24, ()),
    "PeerAddress": (0, ("ip", "port", "node_id")),
}
TEXTS = {"agent", "name", "detail", "features"}


def body_of(kind: str, values: Any) -> bytes:
    out = b""
    for number, slot in enumerate(SCHEMA[kind][1], 1):
        name = slot.rstrip("*")
        value = values[name]
        if name == "peers":
            items = [body_of("PeerAddress", peer) for peer in value]
        elif name == "features":
            items = [text.encode() for text in value]
        elif name == "tags":
            items = [unhex(tag) for tag in value]
        elif slot.endswith("*"):
            items = [b"".join(map(varint, value))] if value else []
        elif isinstance(value, str):
            raw = value.encode() if name in TEXTS else unhex(value)
            items = [raw] if raw else []
        else:
            items = []
            out += tag(number, 0) + varint(value) if value else b""
        for item in items:
            out += length_delimited(number, item)
    return out


def plain(value: Any) -> Any:
    """A message as the vectors spell it."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


@cases("messages.json", "messages")
def test_messages(case: Any) -> None:
    kind = case["type"]
    frame = length_delimited(SCHEMA[kind][0], body_of(kind, case["fields"]))
    assert frame.hex() == case["frame"]
    message = codec.decode(frame)
    assert type(message).__name__ == kind
    assert plain(message) == case["fields"]


@cases("messages.json", "newer")
def test_what_a_newer_peer_may_say(case: Any) -> None:
    message = codec.decode(unhex(case["frame"]))
    assert type(message).__name__ == case["type"]
    assert plain(message) == case["fields"]


@cases("messages.json", "refused")
def test_refused_messages(case: Any) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(unhex(case["frame"]))


def test_every_message_type_has_a_vector() -> None:
    listed = {case["type"] for case in load("messages.json")["messages"]}
    assert listed == set(SCHEMA) - {"PeerAddress"}


# --- records and a whole session ----------------------------------------------


def sealed(key: bytes, counter: int, content: bytes) -> bytes:
    nonce = bytes(4) + counter.to_bytes(8, "big")
    cipher = AESGCM(key).encrypt(nonce, content, None)
    return len(cipher).to_bytes(4, "big") + cipher


def test_records() -> None:
    vector = load("records.json")
    key = unhex(vector["key"])
    opening = Opening(key)
    for counter, record in enumerate(vector["records"]):
        content, wire = unhex(record["plain"]), unhex(record["wire"])
        assert wire == sealed(key, counter, content)
        assert records.ciphertext_size(wire) == len(wire) - 4
        assert opening.open(wire[4:]) == content


class Transcript:
    """Noise XX as its specification writes it, both ends at once."""

    def __init__(self, prologue: bytes) -> None:
        self.hash = b"Noise_XX_25519_AESGCM_SHA256".ljust(32, b"\0")
        self.chain = self.hash
        self.key = b""
        self.mix(prologue)

    def mix(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def derive(self, material: bytes) -> tuple[bytes, bytes]:
        secret = hmac.digest(self.chain, material, "sha256")
        first = hmac.digest(secret, b"\1", "sha256")
        return first, hmac.digest(secret, first + b"\2", "sha256")

    def agree(self, private: X25519PrivateKey, public: X25519PublicKey) -> None:
        self.chain, self.key = self.derive(private.exchange(public))
        self.nonce = 0

    def seal(self, content: bytes) -> bytes:
        out = content
        if self.key:
            nonce = bytes(4) + self.nonce.to_bytes(8, "big")
            out = AESGCM(self.key).encrypt(nonce, content, self.hash)
            self.nonce += 1
        self.mix(out)
        return out


def test_the_handshake_of_the_session() -> None:
    vector = load("session.json")
    dialler, listener = vector["dialler"], vector["listener"]

    def private(side: Any, name: str) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(unhex(side[name]))

    def payload(side: Any) -> bytes:
        identity = Ed25519PrivateKey.from_private_bytes(unhex(side["identity_seed"]))
        static = private(side, "noise_static").public_key().public_bytes_raw()
        signature = identity.sign(b"furymesh-noise-static-key:" + static)
        return identity.public_key().public_bytes_raw() + signature

    de, ds = private(dialler, "noise_ephemeral"), private(dialler, "noise_static")
    le, ls = private(listener, "noise_ephemeral"), private(listener, "noise_static")
    noise = Transcript(b"furymesh/1")

    first = de.public_key().public_bytes_raw()
    noise.mix(first)
    first += noise.seal(b"")
    second = le.public_key().public_bytes_raw()
    noise.mix(second)
    noise.agree(le, de.public_key())
    second += noise.seal(ls.public_key().public_bytes_raw())
    noise.agree(ls, de.public_key())
    second += noise.seal(payload(listener))
    third = noise.seal(ds.public_key().public_bytes_raw())
    noise.agree(ds, le.public_key())
    third += noise.seal(payload(dialler))

    wires = [step["wire"] for step in vector["steps"] if step["what"] == "handshake"]
    expected = [len(raw).to_bytes(2, "big") + raw for raw in (first, second, third)]
    assert wires == [raw.hex() for raw in expected]
    assert noise.hash.hex() == vector["handshake_hash"]
    keys = noise.derive(b"")
    assert [key.hex() for key in keys] == [dialler["send_key"], listener["send_key"]]


def test_the_session_is_read_and_legal() -> None:
    vector = load("session.json")
    file_id = FileId(unhex(vector["file_id"]))
    handshake_hash = unhex(vector["handshake_hash"])
    names = ("dialler", "listener")
    keys = {name: unhex(vector[name]["send_key"]) for name in names}
    counters = dict.fromkeys(names, 0)
    opening = {name: Opening(keys[name]) for name in names}  # of what that end sent
    reading = {  # the other end's view of what that end sent
        name: Session(initiator=name == "listener", handshake_hash=handshake_hash) for name in names
    }
    for session in reading.values():
        session.join(file_id)
    heard: list[m.Message] = []
    content = b""
    manifest: Manifest | None = None
    for step in vector["steps"]:
        if step["what"] == "handshake":
            continue
        name, raw, wire = step["from"], unhex(step["plain"]), unhex(step["wire"])
        assert wire == sealed(keys[name], counters[name], raw)
        counters[name] += 1
        assert opening[name].open(wire[4:]) == raw
        session = reading[name]
        if session.payload_left:
            session.payload_received(len(raw))
            content += raw
            continue
        message = session.received(raw)
        heard.append(message)
        match message:
            case m.Join():
                assert session.proves(message, file_id)
                session.accept(message, file_id)
                assert session.live(file_id)
            case m.ManifestHeader():
                manifest = Manifest(message.header, file_id)
            case m.ManifestPage():
                assert manifest is not None
                manifest.add_page(message.page, message.data)
            case m.Leave():
                assert session.left(message) == file_id
            case _:
                pass
    assert manifest is not None
    assert content == unhex(vector["content"])
    assert manifest.matches(0, content)
    spoken = [step["what"] for step in vector["steps"] if step["what"] not in ("handshake",)]
    assert [type(message).__name__ for message in heard] == [
        what for what in spoken if what != "chunk bytes"
    ]
    assert reading["dialler"].state is State.CLOSED


def test_the_handshake_payloads_name_the_nodes() -> None:
    vector = load("session.json")
    sides = []
    for name, initiator in (("dialler", True), ("listener", False)):
        side = vector[name]
        sides.append(
            noise.Handshake(
                initiator=initiator,
                static=X25519PrivateKey.from_private_bytes(unhex(side["noise_static"])),
                prologue=unhex(vector["prologue"]),
                psk=None,
                ephemeral=X25519PrivateKey.from_private_bytes(unhex(side["noise_ephemeral"])),
            )
        )
    dialler, listener = sides
    wires = [unhex(step["wire"])[2:] for step in vector["steps"] if step["what"] == "handshake"]
    assert dialler.write_message(b"") == wires[0]
    assert listener.read_message(wires[0]) == b""
    payload = dialler.read_message(wires[1])
    assert check_payload(payload, dialler.remote_static).hex() == vector["listener"]["node_id"]
    Ed25519PublicKey.from_public_bytes(payload[:32]).verify(
        payload[32:], b"furymesh-noise-static-key:" + dialler.remote_static
    )


# --- the specification's table of limits ---------------------------------------


LIMIT = re.compile(r"^\| `([a-z_.]+)\.([A-Z_]+)` \| ([0-9][0-9, .]*)[^|]*\| .+ \|$", re.MULTILINE)


def test_the_limits_in_the_specification_are_those_of_the_code() -> None:
    rows = LIMIT.findall(PROTOCOL)
    assert len(rows) > 40
    for module, name, number in rows:
        actual = getattr(importlib.import_module(f"furymesh.{module}"), name)
        assert float(number.replace(",", "").strip()) == actual, f"{module}.{name}"


def test_every_limit_of_the_wire_is_in_the_specification() -> None:
    listed = {(module, name) for module, name, _ in LIMIT.findall(PROTOCOL)}
    for module in ("codec", "sync_codec", "session", "records", "noise"):
        loaded = importlib.import_module(f"furymesh.wire.{module}")
        for name in vars(loaded):
            if name.startswith("MAX_") and name not in ("MAX_CHUNK_SIZE",):
                assert (f"wire.{module}", name) in listed, f"{module}.{name}"
