"""Targets that are texts: links, addresses, ids, sizes, names."""

from __future__ import annotations

from collections.abc import Callable

from furymesh.core import node_record as node_records
from furymesh.core import paths
from furymesh.core.errors import (
    AmbiguousIdError,
    InvalidManifestError,
    NotFoundError,
    UsageError,
)
from furymesh.core.hashing import HashAlgorithm
from furymesh.core.ids import (
    FileId,
    node_id_text,
    parse_file_id,
    parse_node_id,
    resolve_prefix,
)
from furymesh.core.link import Address, Link, Tracker
from furymesh.core.units import MAX_SIZE, format_rate, format_size, parse_size
from furymesh.net.addresses import is_loopback, may_mean, packed_ip, same_machine, unpacked_ip
from furymesh.node.orders import checked_sha256
from furymesh.sftp.options import Options
from furymesh.sftp.paths import remote_path
from furymesh.sftp.url import parse as parse_url
from tests.fuzz.engine import Target
from tests.fuzz.material import FILE_ID, KEY, NAMES, NODE_ID, text_of


def lines_of(data: bytes) -> list[str]:
    return text_of(data).split("\n")


def link(data: bytes) -> None:
    """An accepted link is one that can be passed on and read again."""
    read = Link.parse(text_of(data))
    assert Link.parse(read.text) == read
    assert read.text.isascii()
    assert read.text.isprintable()


def address(data: bytes) -> None:
    read = Address.parse(text_of(data), any_port=True)
    assert Address.parse(str(read), any_port=True) == read
    read.host.encode("idna")


def words(data: bytes) -> None:
    """Ids, prefixes, hashes and sums, each as the first line of the input says."""
    kind, _, text = text_of(data).partition("\n")
    readers: dict[str, Callable[[str], object]] = {
        "file": parse_file_id,
        "prefix": lambda value: resolve_prefix(
            value, [FILE_ID, FileId(bytes(32))], what="share", listed="l"
        ),
        "hash": HashAlgorithm.from_label,
        "sum": checked_sha256,
    }
    if kind in readers:
        readers[kind](text)
    else:
        assert node_id_text(parse_node_id(text)) == text.strip().lower()


def units(data: bytes) -> None:
    size = parse_size(text_of(data))
    assert 0 <= size <= MAX_SIZE
    assert abs(parse_size(format_size(size)) - size) <= size * 0.05 or size > 9 * 10**18
    assert format_rate(size).isprintable()


def path_names(data: bytes) -> None:
    """Each line is a hint, a component, a path; all of them are a table."""
    for line in lines_of(data):
        assert paths.shown(line).isprintable()
        name = paths.safe_name(line, "fallback")
        assert paths.check_path(name) == (name,)
        assert len(name.encode()) <= paths.MAX_SAFE_NAME_BYTES
        assert paths.safe_name(name, "fallback") == name
        try:
            components = paths.check_path(line)
        except InvalidManifestError:
            continue
        assert "/".join(components) == line
        assert not {"", ".", ".."} & set(components)
        line.encode()
    paths.check_table(lines_of(data))


_ID = FILE_ID.hex().encode()
_NODE = node_id_text(NODE_ID).encode()
_LINK = Link(FILE_ID, "a film é.mkv", (Address("192.0.2.7", 7000, NODE_ID), Address("::1", 1)), KEY)
_TRACKED = Link(FILE_ID, trackers=(Tracker.parse("http://[::1]:6969/a?b=%20"),))


def ip(data: bytes) -> None:
    """Addresses as texts and as bytes; nothing is raised for any."""
    text = text_of(data)
    raw = packed_ip(text)
    for host in (text, unpacked_ip(raw) if raw else "::1"):
        same_machine(host)
        is_loopback(host)
        may_mean(host, "fe80::1")
        may_mean("127.0.0.1", host)
    assert not raw or packed_ip(unpacked_ip(raw)) == raw


def node_record(data: bytes) -> None:
    """What names anything is what this program would have written."""
    places = node_records.decode(data)
    assert not places or node_records.encode(places) == data


def sftp_url(data: bytes) -> None:
    """What is accepted can be connected to, and asked for."""
    place = parse_url(text_of(data))
    Options(place.host, place.port, place.username)
    assert remote_path(place.path).encode()


TARGETS = (
    Target(
        "sftp_url",
        sftp_url,
        lambda: {"user": b"sftp://me@host:22/a%20b", "home": b"sftp://[::1]/~/x"},
        (UsageError,),
        (b"sftp://", b"/~/", b"%2F", b"%00", b"%ff", b":", b"@", b"[", b"]", b"?", b"#", b"-o"),
    ),
    Target(
        "node_record",
        node_record,
        lambda: {"two": b"1 192.0.2.7:7654 [2001:db8::7]:1", "other": b"2 192.0.2.7:7654"},
        (),
        (b"1 ", b" 192.0.2.7:1", b" [::1]:1", b" a.example:1", b"@", _NODE, b":0", b"\n", b"\t"),
    ),
    Target(
        "link",
        link,
        lambda: {
            "full": _LINK.text.encode(),
            "bare": _ID,
            "unknown": _ID + b"?x=%20&name=",
            "tracked": _TRACKED.text.encode(),
        },
        (UsageError,),
        (
            b"furymesh:",
            b"?name=",
            b"&peer=",
            b"&key=",
            b"&tracker=udp://",
            b"/announce",
            b"&node=",
            b"%",
            b"[::1]:1",
            _NODE + b"@",
            b"&",
            b"=",
        ),
    ),
    Target(
        "address",
        address,
        lambda: {
            "v4": b"192.0.2.7:7000",
            "v6": b"[fe80::1%eth0]:0",
            "node": _NODE + b"@node.example.:65535",
        },
        (UsageError,),
        (b"@", b"[", b"]:", b":", b"%", b"::", b"0x1", b"1.1", b"xn--", b".", _NODE),
    ),
    Target(
        "words",
        words,
        lambda: {
            "file": b"file\n" + _ID,
            "prefix": b"prefix\n00010203",
            "node": b"node\n" + _NODE,
            "hash": b"hash\nBlake3 ",
            "sum": b"sum\n" + _ID,
        },
        (UsageError, NotFoundError, AmbiguousIdError),
        (b"file\n", b"node\n", b"prefix\n", b"hash\n", b"sum\n", b"=", b"aaaaaaaa"),
    ),
    Target(
        "units",
        units,
        lambda: {"plain": b"4096", "binary": b"12MiB", "decimal": b"1.5 GB"},
        (UsageError,),
        (b"E", b"EiB", b"k", b"i", b"B", b".", b"/s", b"e9", b"_", "٣".encode()),
    ),
    Target(
        "paths",
        path_names,
        lambda: {
            "tree": b"README\nsrc/a.c\nsrc/b.c",
            "bad": b"../x\nC:\\y\nnul.tar\n.hidden. ",
            "long": "é".encode() * 120 + b".tar",
        },
        (InvalidManifestError,),
        NAMES,
    ),
    Target(
        "ip",
        ip,
        lambda: {"v4": b"192.0.2.1", "v6": b"fe80::1%eth0", "mapped": b"::ffff:127.0.0.1"},
        (),
        (b"::", b"%", b".", b"0x7f", b"ffff:", b"127.1", b"/64"),
    ),
)
