"""Writes the golden vectors, and the worked example in docs/protocol.md.

Run ``python tests/vectors/make_vectors.py`` after a deliberate change of a
format. The tests compare what this code produces with the committed files, so
an accidental change of any byte on the wire or on disk shows up as a diff.
Bytes are hex; every key is fixed and worthless.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from furymesh.core.bitfield import mask_of, to_bytes
from furymesh.core.geometry import Geometry
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import FileId, NodeId, access_proof, discovery_tag, node_id_text
from furymesh.core.layout import Entry, EntryKind
from furymesh.core.link import Address, Link
from furymesh.core.manifest import Manifest
from furymesh.core.sealing import OVERHEAD, Sealer, cipher_size
from furymesh.wire import codec, records
from furymesh.wire import messages as m
from furymesh.wire.authentication import PROLOGUE, frame_message, make_payload
from furymesh.wire.noise import Handshake
from furymesh.wire.records import Sealing
from furymesh.wire.session import Session

HERE = Path(__file__).parent
PROTOCOL = HERE.parents[1] / "docs" / "protocol.md"
BEGIN = "<!-- example: begin (written by tests/vectors/make_vectors.py) -->\n"
END = "<!-- example: end -->\n"

CHUNK_SIZE = 16 * 1024
KEY = bytes(range(32))
HASH = bytes(range(100, 132))
GREETING = b"Hello, furymesh!\n"


def pattern(size: int) -> bytes:
    """Content that is easy to make anywhere: byte i is (7 i + i // 256) mod 256."""
    return bytes((7 * i + i // 256) % 256 for i in range(size))


def ids() -> Any:
    """Tags and proofs of two file ids, and the text form of a node id."""
    shares = []
    for file_id in (FileId(bytes(32)), FileId(bytes(range(32)))):
        shares.append(
            {
                "file_id": file_id.hex(),
                "tag": discovery_tag(file_id).hex(),
                "handshake_hash": HASH.hex(),
                "initiator_proof": access_proof(file_id, HASH, initiator=True).hex(),
                "responder_proof": access_proof(file_id, HASH, initiator=False).hex(),
            }
        )
    nodes = []
    for seed in (bytes(32), b"d" * 32):
        node_id = _node_id(Ed25519PrivateKey.from_private_bytes(seed))
        nodes.append({"seed": seed.hex(), "node_id": node_id.hex(), "text": node_id_text(node_id)})
    return {"shares": shares, "nodes": nodes}


def links() -> Any:
    """Links in their canonical text, other spellings of them, and what is refused."""
    file_id = FileId(bytes(range(32)))
    node_id = _node_id(Ed25519PrivateKey.from_private_bytes(b"d" * 32))
    cases = (
        Link(file_id),
        Link(file_id, "hello.txt"),
        Link(file_id, "Grüße & more = 100%?.txt"),
        Link(file_id, None, (Address("example.org", 7000), Address("fe80::1", 1))),
        Link(file_id, "a", (Address("192.0.2.1", 65535, node_id),), KEY),
        Link(file_id, None, (Address("192.0.2.1", 7000),), KEY, nodes=(node_id, NodeId(bytes(32)))),
    )
    text = file_id.hex()
    return {
        "links": [
            {
                "text": link.text,
                "file_id": link.file_id.hex(),
                "name": link.name,
                "peers": [
                    {
                        "text": str(peer),
                        "host": peer.host,
                        "port": peer.port,
                        "node_id": peer.node_id.hex() if peer.node_id else None,
                    }
                    for peer in link.peers
                ],
                "nodes": [node.hex() for node in link.nodes],
                "key": link.key.hex() if link.key else None,
            }
            for link in cases
        ],
        "same": [
            [cases[0].text, text],
            [cases[0].text, f"FURYMESH:{text.upper()}"],
            [cases[0].text, f"furymesh:{text}?later=field"],
            [cases[1].text, f"furymesh:{text}?later=field&name=hello%2Etxt"],
            [cases[3].text, f"furymesh:{text}?peer=Example.ORG%3A7000&peer=[fe80:0::1]:1"],
        ],
        "refused": [
            "furymesh:",
            f"furymesh:{text[:-1]}",
            f"furymesh:{text}?name=a&name=b",
            f"furymesh:{text}?peer=host",
            f"furymesh:{text}?peer=host:0",
            f"furymesh:{text}?peer=host:65536",
            f"furymesh:{text}?peer=::1:7000",
            f"furymesh:{text}?node={'a' * 51}",
            f"furymesh:{text}?key=AAAA",
            f"furymesh:{text}?name=%ff",
        ],
    }


def bitfields() -> Any:
    """Sets of chunks in their packed form."""
    cases: tuple[tuple[int, tuple[int, ...]], ...] = (
        (0, ()),
        (1, (0,)),
        (8, (0, 7)),
        (9, (8,)),
        (12, (0, 1, 2, 3, 11)),
        (20, (3, 9, 17)),
        (16, tuple(range(16))),
    )
    return {
        "bitfields": [
            {
                "chunk_count": count,
                "chunks": list(chunks),
                "bytes": to_bytes(mask_of(chunks), count).hex(),
            }
            for count, chunks in cases
        ]
    }


def manifests() -> Any:
    """Manifests of every kind of share; `content` is a size for `pattern`, or hex."""
    table = (
        Entry("docs/empty.txt", EntryKind.FILE, 0),
        Entry("docs/grüße.txt", EntryKind.FILE, 20_000),
        Entry("logs", EntryKind.DIRECTORY, 0),
        Entry("run.sh", EntryKind.EXECUTABLE, 300),
    )
    folder = pattern(sum(entry.size for entry in table))
    cases = {
        "small file": _manifest(GREETING),
        "empty file": _manifest(b""),
        "small file, SHA-256": _manifest(GREETING, algorithm=HashAlgorithm.SHA256),
        "file of three chunks": _manifest(pattern(40_000)),
        "folder": _manifest(folder, entries=table),
        "empty folder": _manifest(b"", entries=()),
        "encrypted file": _manifest(GREETING, key=KEY),
        "encrypted file of two chunks": _manifest(pattern(CHUNK_SIZE), key=KEY),
        "encrypted folder": _manifest(folder, entries=table, key=KEY),
    }
    return {"manifests": [{"name": name, **case} for name, case in cases.items()]}


def messages() -> Any:
    """Every message, encoded; what a newer peer may say; and what is refused."""
    frames: list[dict[str, Any]] = []
    for message in every_message():
        frames.append(
            {
                "type": type(message).__name__,
                "fields": _plain(message),
                "frame": codec.encode(message).hex(),
            }
        )
    return {
        "messages": frames,
        # Fields 99, 200 and 201 and message 1023 are not in version 1.
        "newer": [
            {
                "why": "unknown fields in a Ping",
                "frame": "8201090805c00c01ca0c0178",
                "type": "Ping",
                "fields": {"nonce": 5},
            },
            {
                "why": "unknown field beside the body",
                "frame": "82010208059a060178",
                "type": "Ping",
                "fields": {"nonce": 5},
            },
            {"why": "unknown message", "frame": "fa3f020801", "type": "Unknown", "fields": {}},
            {
                "why": "unknown reason in a Leave",
                "frame": "2205080110e707",
                "type": "Leave",
                "fields": {"share": 1, "reason": 0},
            },
            {
                "why": "indices that are not packed",
                "frame": "5a0608011005100a",
                "type": "Request",
                "fields": {"share": 1, "chunks": [5, 10]},
            },
        ],
        "refused": [
            {"why": "not protobuf", "frame": "ff"},
            {"why": "cut short", "frame": "0a05"},
            {"why": "Hello without an instance", "frame": "0a0408011001"},
            {"why": "Hello with port 65536", "frame": "0a12080110012208696e7374616e636528808004"},
            {"why": "Join with a short tag and proof", "frame": "120808011201001a0100"},
            {"why": "Data of no bytes", "frame": "62020801"},
            {"why": "Data longer than a piece", "frame": "6206080120818040"},
            {"why": "Bitmap that starts within a byte", "frame": "420408011001"},
            {"why": "Bitmap with all and bits", "frame": "420708011a01012001"},
            {"why": "text that is not UTF-8", "frame": "9201031201ff"},
            {"why": "Rendezvous with a short tag", "frame": "9a01030a0100"},
            {"why": "Answer without a token", "frame": "ba0100"},
        ],
    }


def every_message() -> tuple[m.Message, ...]:
    """At least one message of each type, with every field used and with none."""
    node_id = _node_id(Ed25519PrivateKey.from_private_bytes(b"d" * 32))
    return (
        m.Hello(1, 1, b"instance"),
        m.Hello(3, 1, b"\0" * 8, 7000, "furymesh/0.1.0", ("a", "b"), bytes([192, 0, 2, 7]), 50_000),
        m.Join(1, bytes(range(32)), bytes(range(32, 64))),
        m.Join(4, bytes(range(32)), bytes(range(32, 64)), 3),
        m.Refuse(1, m.Reason.NOT_FOUND),
        m.Leave(2, m.Reason.DONE),
        m.GetManifest(1, True, ()),
        m.GetManifest(1, False, (0, 1, 300)),
        m.ManifestHeader(1, b"FMH1", "grüße.txt", True),
        m.ManifestPage(1, 2, b"page"),
        m.ManifestPage(1, 3, b""),
        m.Bitmap(1, 0, b"", True),
        m.Bitmap(1, 524_288, b"\x0f\x08", False),
        m.Have(1, (0, 127, 128, 2**31 - 1)),
        m.Lost(1, (7,)),
        m.Request(1, (4, 2)),
        m.Data(1, 4, 0, codec.MAX_PIECE),
        m.Data(300, 70_000, 1_048_576, 1),
        m.Cancel(1, (2,)),
        m.Reject(1, (5, 6), m.Reason.ELSEWHERE, (8, 9)),
        m.Reject(1, (2,), m.Reason.DONE),
        m.Peers(
            1,
            (
                m.PeerAddress(bytes([192, 0, 2, 1]), 7000, node_id),
                m.PeerAddress(bytes(15) + b"\1", 65535),
            ),
        ),
        m.Ping(2**64 - 1),
        m.Ping(0),
        m.Pong(5),
        m.Goodbye(m.Reason.SHUTTING_DOWN, "back soon"),
        m.Rendezvous((bytes(range(32)), bytes(range(32, 64)))),
        m.Rendezvous(()),
        m.Introduction(bytes(range(32)), node_id, b"instance", bytes([192, 0, 2, 1]), 7000),
        m.Reach(node_id, b"instance"),
        m.Summons(bytes(range(16)), node_id, b"instance", bytes(15) + b"\1", 65535),
        m.Summons(bytes(range(16)), node_id, b"instance"),
        m.Answer(bytes(range(16))),
        m.Spliced(),
    )


def sealed_records() -> Any:
    """The first records under a fixed key."""
    sealing = Sealing(KEY)
    plains = (b"\x82\x01\x00", GREETING, bytes(300))
    return {
        "key": KEY.hex(),
        "records": [
            {"plain": plain.hex(), "wire": _seal(sealing, plain).hex()} for plain in plains
        ],
    }


def session() -> Any:
    """A whole short session: handshake, Hello, Join, a manifest and one chunk."""
    sides = {"dialler": _Side("d", initiator=True), "listener": _Side("l", initiator=False)}
    dialler, listener = sides["dialler"], sides["listener"]
    steps: list[dict[str, Any]] = []

    def handshake(sender: str, payload: bytes) -> None:
        message = sides[sender].noise.write_message(payload)
        other = listener if sender == "dialler" else dialler
        assert other.noise.read_message(message) == payload
        steps.append({"from": sender, "what": "handshake", "wire": frame_message(message).hex()})

    handshake("dialler", b"")
    handshake("listener", listener.payload)
    handshake("dialler", dialler.payload)
    for side in sides.values():
        side.split()

    def record(sender: str, what: str, plain: bytes) -> None:
        wire = _seal(sides[sender].sealing, plain)
        steps.append({"from": sender, "what": what, "plain": plain.hex(), "wire": wire.hex()})

    def say(sender: str, message: m.Message) -> None:
        record(sender, type(message).__name__, codec.encode(message))

    manifest = Manifest.build(
        HashAlgorithm.BLAKE3,
        Geometry(len(GREETING), CHUNK_SIZE),
        HashAlgorithm.BLAKE3.digest(GREETING),
    )
    file_id = manifest.file_id
    loopback = bytes([127, 0, 0, 1])
    agent = "example"
    say("dialler", m.Hello(1, 1, b"dialler1", 0, agent, (), loopback, 7000))
    say("listener", m.Hello(1, 1, b"listener", 7000, agent, (), loopback, 50_000))
    say("dialler", dialler.session.join(file_id))
    say("listener", listener.session.join(file_id))
    say("listener", m.Bitmap(1, 0, b"", True))
    say("dialler", m.GetManifest(1, True, ()))
    say("listener", m.ManifestHeader(1, manifest.header_bytes, "hello.txt", False))
    say("dialler", m.GetManifest(1, False, (0,)))
    say("listener", m.ManifestPage(1, 0, manifest.page(0)))
    say("dialler", m.Request(1, (0,)))
    say("listener", m.Data(1, 0, 0, len(GREETING)))
    record("listener", "chunk bytes", GREETING)
    say("dialler", m.Have(1, (0,)))
    say("dialler", dialler.session.leave(file_id, m.Reason.DONE))
    say("listener", listener.session.leave(file_id, m.Reason.DONE))
    say("dialler", m.Goodbye(m.Reason.DONE, ""))
    return {
        "prologue": PROLOGUE.hex(),
        "content": GREETING.hex(),
        "file_id": file_id.hex(),
        "handshake_hash": dialler.noise.handshake_hash.hex(),
        **{name: side.keys for name, side in sides.items()},
        "steps": steps,
    }


class _Side:
    """One end of the worked example: `letter` repeated makes its keys."""

    def __init__(self, letter: str, *, initiator: bool) -> None:
        seeds = [letter * 32, letter.upper() * 32, (letter + letter.upper()) * 16]
        identity, static, ephemeral = (seed.encode() for seed in seeds)
        private = Ed25519PrivateKey.from_private_bytes(identity)
        noise_key = X25519PrivateKey.from_private_bytes(static)
        self.keys = {
            "identity_seed": identity.hex(),
            "node_id": _node_id(private).hex(),
            "noise_static": static.hex(),
            "noise_ephemeral": ephemeral.hex(),
        }
        self.initiator = initiator
        self.payload = make_payload(private, noise_key.public_key().public_bytes_raw())
        self.noise = Handshake(
            initiator=initiator,
            static=noise_key,
            prologue=PROLOGUE,
            psk=None,
            ephemeral=X25519PrivateKey.from_private_bytes(ephemeral),
        )

    def split(self) -> None:
        send_key, _ = self.noise.split()
        self.keys["send_key"] = send_key.hex()
        self.sealing = Sealing(send_key)
        self.session = Session(initiator=self.initiator, handshake_hash=self.noise.handshake_hash)


def _manifest(
    content: bytes,
    *,
    algorithm: HashAlgorithm = HashAlgorithm.BLAKE3,
    entries: tuple[Entry, ...] | None = None,
    key: bytes | None = None,
) -> dict[str, Any]:
    sealer = Sealer(key) if key else None
    room = CHUNK_SIZE - OVERHEAD if sealer else CHUNK_SIZE
    chunks = [content[at : at + room] for at in range(0, len(content), room)]
    size = len(content)
    if sealer:
        chunks = [sealer.seal(index, chunk) for index, chunk in enumerate(chunks)]
        size = cipher_size(size, CHUNK_SIZE)
    digests = b"".join(map(algorithm.digest, chunks))
    manifest = Manifest.build(
        algorithm, Geometry(size, CHUNK_SIZE), digests, entries=entries, sealer=sealer
    )
    case: dict[str, Any] = {
        "hash": algorithm.label,
        "content": content.hex() if content == GREETING else len(content),
        "chunk_size": CHUNK_SIZE,
        "stream_size": size,
        "entries": None
        if entries is None
        else [[entry.path, entry.kind.value, entry.size] for entry in entries],
        "key": key.hex() if key else None,
        "header": manifest.header_bytes.hex(),
        "pages": [manifest.page(page).hex() for page in range(manifest.header.page_count)],
        "file_id": manifest.file_id.hex(),
    }
    if sealer:
        # Enough to check a sealing routine; the digests check the rest.
        case["sealed_ends"] = [[chunk[:28].hex(), chunk[-16:].hex()] for chunk in chunks]
    return case


def _seal(sealing: Sealing, plain: bytes) -> bytes:
    out = bytearray(len(plain) + records.OVERHEAD)
    sealing.seal_into(plain, memoryview(out), 0)
    return bytes(out)


def _node_id(private: Ed25519PrivateKey) -> NodeId:
    return NodeId(private.public_key().public_bytes_raw())


def _plain(value: Any) -> Any:
    """A message as JSON: bytes in hex, reasons as numbers."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, m.Reason) else value


def example(vector: Any) -> str:
    """The session vector as the listing in docs/protocol.md."""
    lines = ["```"]
    for name in ("dialler", "listener"):
        lines += [f"{name}:"] + [f"  {key:15} {value}" for key, value in vector[name].items()]
    lines += ["both:", f"  {'handshake hash':15} {vector['handshake_hash']}"]
    lines += [f"  {'file id':15} {vector['file_id']}", "```", "", "```"]
    for step in vector["steps"]:
        other = "listener" if step["from"] == "dialler" else "dialler"
        lines.append(f"{step['from']} → {other}: {step['what']}")
        if "plain" in step:
            lines += _dump("plain", step["plain"])
        lines += _dump("wire", step["wire"])
    return "\n".join([*lines, "```", ""])


def _dump(label: str, text: str) -> list[str]:
    rows = [text[at : at + 64] for at in range(0, len(text), 64)]
    return [f"  {label if not at else '':5}  {row}" for at, row in enumerate(rows)]


def rendered() -> dict[str, str]:
    """What each vector file should hold."""
    makers = {
        "ids": ids,
        "links": links,
        "bitfields": bitfields,
        "manifests": manifests,
        "messages": messages,
        "records": sealed_records,
        "session": session,
    }
    return {
        f"{name}.json": json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        for name, make in makers.items()
    }


def main() -> None:
    """Write the vector files and the example in the specification."""
    for name, text in rendered().items():
        (HERE / name).write_text(text, encoding="utf-8")
    if PROTOCOL.exists():
        before, _, rest = PROTOCOL.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        listing = example(session())
        PROTOCOL.write_text(before + BEGIN + listing + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
