from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.errors import UsageError
from furymesh.core.ids import FileId, NodeId
from furymesh.core.link import Address, Link, Mirror, Tracker

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.ip_addresses().map(str),
)
IDS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.builds(Address, HOSTS, st.integers(1, 65535), st.none() | IDS.map(NodeId))
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
TRACKERS = st.builds(
    Tracker,
    st.sampled_from(["http", "https", "udp"]),
    st.builds(Address, HOSTS, st.integers(1, 65535)),
    st.just("") | st.from_regex(r"/([a-z&?=+/-]|%[0-9A-F]{2}){0,40}", fullmatch=True),
)
PATHS = st.from_regex(r"/([A-Za-z0-9._~:@!$&'()*+,;=/-]|%[3-6][0-9A-D]){0,40}", fullmatch=True)
MIRRORS = st.one_of(
    st.builds(
        Mirror,
        st.sampled_from(["http", "https"]),
        st.builds(Address, HOSTS, st.integers(1, 65535)),
        st.builds("".join, st.tuples(PATHS, st.sampled_from(["", "?", "?a=b&c=%3F"]))),
    ),
    st.builds(
        Mirror,
        st.just("sftp"),
        st.builds(Address, HOSTS, st.integers(1, 65535)),
        PATHS,
        st.just("") | st.from_regex(r"[a-z_][a-z0-9._-]{0,8}", fullmatch=True),
    ),
)
LINKS = st.builds(
    Link,
    IDS.map(FileId),
    st.none() | NAMES,
    st.lists(ADDRESSES, max_size=4).map(tuple),
    st.none() | IDS,
    st.lists(TRACKERS, max_size=3).map(tuple),
    st.lists(IDS.map(NodeId), max_size=4).map(tuple),
    st.booleans(),
    st.lists(MIRRORS, max_size=3).map(tuple),
)


@given(ADDRESSES)
def test_address_round_trip(address: Address) -> None:
    assert Address.parse(str(address)) == address


@given(LINKS)
def test_link_round_trip(link: Link) -> None:
    assert Link.parse(link.text) == link
    assert link.text.isascii()
    assert link.text.isprintable()


@given(MIRRORS, st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1))
def test_a_file_lies_below_its_mirror(mirror: Mirror, name: str) -> None:
    there = mirror.below(f"a/{name}")
    assert Mirror.parse(str(there)) == there
    assert there.name == name
    assert there.path.partition("?")[2] == mirror.path.partition("?")[2]


@given(st.text(max_size=80) | st.text("furymesh:0af?&=%@[]/", max_size=120), IDS)
def test_only_usage_errors_escape(text: str, file_id: bytes) -> None:
    for attempt in (
        text,
        f"furymesh:{file_id.hex()}?{text}",
        f"{file_id.hex()}?peer={text}",
        f"{file_id.hex()}?tracker=udp://{text}",
        f"{file_id.hex()}?mirror=sftp://{text}",
    ):
        try:
            link = Link.parse(attempt)
        except UsageError as error:
            reason = str(error)
            assert reason.isprintable()
        else:
            assert Link.parse(link.text) == link
