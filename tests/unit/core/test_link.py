import base64

import pytest

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId, NodeId, node_id_text
from furymesh.core.link import (
    MAX_LINK_MIRRORS,
    MAX_LINK_PEERS,
    MAX_LINK_TRACKERS,
    MAX_MIRROR_LENGTH,
    MAX_TRACKER_LENGTH,
    Address,
    Link,
    Mirror,
    Tracker,
)

ID = FileId(bytes(range(32)))
NODE = NodeId(bytes(range(1, 33)))
KEY = bytes(range(100, 132))
KEY_TEXT = base64.urlsafe_b64encode(KEY).decode().rstrip("=")


def test_full_link_both_ways() -> None:
    link = Link(ID, "a b&c?é.bin", (Address("example.org", 7000), Address("::1", 1, NODE)), KEY)
    assert link.text == (
        f"furymesh:{ID.hex()}?name=a%20b%26c%3F%C3%A9.bin&peer=example.org:7000"
        f"&peer={node_id_text(NODE)}@[::1]:1&key={KEY_TEXT}"
    )
    assert Link.parse(link.text) == link


def test_a_peer_may_be_named_without_its_address() -> None:
    other = NodeId(bytes(32))
    link = Link(ID, peers=(Address("192.0.2.7", 1, NODE), Address("192.0.2.8", 1)), nodes=(other,))
    assert link.text.endswith(f"&peer=192.0.2.8:1&node={node_id_text(other)}")
    assert Link.parse(link.text) == link
    assert link.node_ids == {NODE, other}


def test_peers_of_both_kinds_are_counted_together() -> None:
    peers = "&peer=h:1" * (MAX_LINK_PEERS - 1)
    node = f"&node={node_id_text(NODE)}"
    assert len(Link.parse(f"{ID.hex()}?{peers}{node}").peers) == MAX_LINK_PEERS - 1
    with pytest.raises(UsageError, match="more than"):
        Link.parse(f"{ID.hex()}?{peers}{node}{node}")


@pytest.mark.parametrize(
    "text",
    [
        ID.hex(),
        ID.hex().upper(),
        f"furymesh:{ID.hex()}",
        f" FuryMesh:{ID.hex()}?\n",
        f"{ID.hex()}?later=1&x&name=",
    ],
)
def test_bare_ids_and_unknown_fields(text: str) -> None:
    assert Link.parse(text) == Link(ID)


@pytest.mark.parametrize("private", [False, True])
def test_a_private_share_is_told_as_such(private: bool) -> None:
    link = Link(ID, "a", key=KEY, private=private)
    assert Link.parse(link.text) == link
    assert ("private=1" in link.text) is private
    assert not Link.parse(f"{ID.hex()}?private=0").private


def test_the_key_shows_in_text_only() -> None:
    link = Link(ID, key=KEY)
    assert KEY_TEXT in link.text
    for shown in (repr(link), str(link), f"{link}", f"{link!r}"):
        assert KEY_TEXT not in shown
        assert repr(KEY) not in shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "furymesh:",
        "http://example.org/",
        f"magnet:{ID.hex()}",
        ID.hex()[:-1],
        f"{ID.hex()}0",
        f"{ID.hex()}?peer=nowhere",
        f"{ID.hex()}?peer=",
        f"{ID.hex()}?name=%ff",
        f"{ID.hex()}?node=",
        f"{ID.hex()}?node={node_id_text(NODE)}@192.0.2.7:1",
        f"{ID.hex()}?name=a&name=b",
        f"{ID.hex()}?key={KEY_TEXT}&key={KEY_TEXT}",
        f"{ID.hex()}?name={'x' * 20_000}",
        f"{ID.hex()}?" + "&".join(["peer=a:1"] * (MAX_LINK_PEERS + 1)),
        f"{ID.hex()}?tracker=",
        f"{ID.hex()}?" + "&".join(["tracker=udp://a:1"] * (MAX_LINK_TRACKERS + 1)),
        f"{ID.hex()}?mirror=",
        f"{ID.hex()}?" + "&".join(["mirror=https://a/"] * (MAX_LINK_MIRRORS + 1)),
    ],
    ids=range(19),
)
def test_refused_links(text: str) -> None:
    with pytest.raises(UsageError):
        Link.parse(text)


@pytest.mark.parametrize(
    "query", ["name=\ud800", "name=a%20\udcff", "x=\udfff", "\ud800"], ids=ascii
)
def test_what_utf8_cannot_carry_is_refused(query: str) -> None:
    """A link that is accepted can be written again."""
    with pytest.raises(UsageError, match="not UTF-8"):
        Link.parse(f"{ID.hex()}?{query}")


@pytest.mark.parametrize(
    "key", ["", KEY_TEXT[:-1], KEY_TEXT + "A", KEY_TEXT + "=", KEY_TEXT[:-1] + "1", "é" * 43]
)
def test_refused_keys_are_not_repeated(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        Link.parse(f"{ID.hex()}?key={key}")
    assert not key or key not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        Link.parse(f"{ID.hex()}&key={KEY_TEXT}")
    assert KEY_TEXT not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7000", Address("127.0.0.1", 7000)),
        ("Example.ORG:65535", Address("example.org", 65535)),
        ("my_host-1.:1", Address("my_host-1.", 1)),
        ("[0:0::1]:80", Address("::1", 80)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        (f"{node_id_text(NODE).upper()}@h:2", Address("h", 2, NODE)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *["", ":1", "host", "host:", "host:0", "host:65536", "host:-1", "host:+1", "host:١"],
        *["host:1 1", "::1:80", "[::1]", "[::1]80", "[h]:80", "[]:1", "[fe80::1%\x1b]:1"],
        *["[fe80::1%a/b]:1", "a b:1", "h/x:1", "-h:1", "h-:1", "é.org:1", "nobody@h:1", "@h:1"],
        *["h:" + "9" * 400, "x" * 254 + ":1", "h\x1b[0m:1"],
    ],
)
def test_refused_addresses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address.parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_port_zero_only_where_it_means_something() -> None:
    assert Address.parse("h:0", any_port=True).port == 0


@pytest.mark.parametrize(
    ("text", "tracker", "written"),
    [
        ("http://T.example/announce", Tracker("http", Address("t.example", 80), "/announce"), None),
        ("https://t.example", Tracker("https", Address("t.example", 443)), "https://t.example:443"),
        (
            "http://[2001:DB8::0:1]:6969/a%2F?x=1&y",
            Tracker("http", Address("2001:db8::1", 6969), "/a%2F?x=1&y"),
            "http://[2001:db8::1]:6969/a%2F?x=1&y",
        ),
        (" udp://192.0.2.1:6969\n", Tracker("udp", Address("192.0.2.1", 6969)), None),
    ],
)
def test_trackers(text: str, tracker: Tracker, written: str | None) -> None:
    assert Tracker.parse(text) == tracker
    assert Tracker.parse(str(tracker)) == tracker
    assert written is None or str(tracker) == written
    link = Link(ID, trackers=(tracker, tracker))
    assert Link.parse(link.text) == link


@pytest.mark.parametrize(
    "text",
    [
        *["", "t.example", "http:/t.example", "ftp://t.example/a", "file:///etc/passwd"],
        *["udp://t.example", "udp://t.example:0", "http://t.example:99999/", "http:///announce"],
        *["http://me:secret@t.example/", "http://t.example/#a", "http://t.example/a b"],
        *["http://t.example/a%2", "http://t.example/é", "http://t.example/\n/", "http://a\\b/"],
        *["http://t.example?x", "http://[::1", "http://[fe80::1%eth0]/", "unix:///run/x.sock"],
        "http://t.example/" + "a" * MAX_TRACKER_LENGTH,
    ],
)
def test_refused_trackers(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Tracker.parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_passkey_shows_in_text_only() -> None:
    passkey = "0123456789abcdef0123456789abcdef"
    tracker = Tracker.parse(f"https://t.example/{passkey}/announce")
    assert passkey in str(tracker)
    assert passkey not in repr(Link(ID, trackers=(tracker,)))
    with pytest.raises(UsageError) as caught:
        Tracker.parse(f"https://t.example/{passkey}/announce#")
    assert passkey not in str(caught.value)


# --- mirrors --------------------------------------------------------------------------


def test_mirrors_stand_in_a_link() -> None:
    urls = ["https://m.example/a%20b?x=1&y", "sftp://ann@[::1]:2222/srv/a", "http://h:8080/"]
    link = Link(ID, mirrors=tuple(map(Mirror.parse, urls)))
    assert link.text.count("&") == 2
    assert Link.parse(link.text) == link
    assert [str(mirror) for mirror in Link.parse(link.text).mirrors] == urls


def test_what_a_mirror_says_of_itself() -> None:
    web = Mirror.parse(" https://M.example/pub/f%20g?token=secret ")
    assert (web.authority, web.place) == ("m.example", "https://m.example/pub/f%20g")
    assert (web.address, web.name) == (Address("m.example", 443), "f g")
    assert "secret" not in repr(web)
    assert str(web.below("")) == str(web)
    assert str(web.below("a/ü?")) == "https://m.example/pub/f%20g/a/%C3%BC%3F?token=secret"
    server = Mirror.parse("sftp://ann@h/x")
    assert (server.user, server.address.port, server.place) == ("ann", 22, "sftp://ann@h/x")
    assert Mirror.parse("http://h:8080/").authority == "h:8080"
    assert Mirror.parse("http://h:80/").authority == "h"
    assert (Mirror.parse("http://h/a/").name, Mirror.parse("http://h/").name) == ("a", "")
    assert Mirror.parse("http://h/a/?x=/y").manifest.path == "/a.furymesh?x=/y"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m.example/f",
        "https://m.example",
        "https:///f",
        "https://m.example:0/f",
        "https://m.example/a b",
        "https://m.example/a%2",
        "https://m.example/f#part",
        "https://m..example/f",
        "https://ann@m.example/f",
        "sftp://m.example/f?x",
        "ftp://m.example/f",
        "file:///etc/passwd",
        "https://m.example/" + "x" * MAX_MIRROR_LENGTH,
    ],
)
def test_refused_mirrors(text: str) -> None:
    with pytest.raises(UsageError):
        Mirror.parse(text)


@pytest.mark.parametrize(
    "text",
    ["https://ann:hunter2@m.example/f", "sftp://ann:hunter2@m/f", "https://ann:hunter2@/f",
     "sftp://ann:hunter2/x@m.example/f", "sftp://:hunter2@h/"],
)  # fmt: skip
def test_a_password_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Mirror.parse(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("digits", [63, 65])
def test_a_file_id_that_lost_or_won_a_digit_is_told_so(digits: int) -> None:
    with pytest.raises(UsageError, match=f"it has {digits} hex digits instead of 64"):
        Link.parse(f"furymesh:{'A1' * 40}"[: 9 + digits] + "?name=x")
    with pytest.raises(UsageError, match="expected 64 hex digits"):
        Link.parse("furymesh:?name=x")


@pytest.mark.parametrize(
    "host",
    ["a..b", ".a", "a..", "..", "x" * 64, "a." + "x" * 64, "x" * 64 + ".", "a.-b", "a-.b"],
)
def test_hosts_that_no_resolver_takes_are_refused(host: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        Address.parse(f"{host}:1")


@pytest.mark.parametrize("scope", ["..", "a..b", ".a", "a.", "", "a" * 16, "a.b." + "c" * 12])
def test_scopes_that_no_resolver_takes_are_refused(scope: str) -> None:
    with pytest.raises(UsageError, match="not an IPv6 address"):
        Address.parse(f"[fe80::1%{scope}]:1")


@pytest.mark.parametrize("scope", ["eth0.100", "wlan-1_", "a" * 15])
def test_accepted_scopes_can_be_looked_up(scope: str) -> None:
    assert Address.parse(f"[fe80::1%{scope}]:1").host.encode("idna")


@pytest.mark.parametrize(
    "host", ["x" * 63, "a.", "a.b", "x" * 63 + ".y.", "_srv._tcp.a", "10.0.0.1"]
)
def test_accepted_hosts_can_be_looked_up(host: str) -> None:
    assert Address.parse(f"{host}:1").host.encode("idna")
