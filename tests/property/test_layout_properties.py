from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.layout import Entry, EntryKind, Layout


@given(st.lists(st.integers(0, 6), max_size=12), st.data())
def test_segments_equal_a_walk_over_every_byte(sizes: list[int], data: st.DataObject) -> None:
    layout = Layout(
        Entry(f"f{number:02}", EntryKind.FILE, size) for number, size in enumerate(sizes)
    )
    stream = [(number, at) for number, size in enumerate(sizes) for at in range(size)]
    assert layout.plain_size == len(stream)
    offset = data.draw(st.integers(0, len(stream)))
    length = data.draw(st.integers(0, len(stream) - offset))
    segments = list(layout.segments(offset, length))
    walked = [(s.file, s.offset + step) for s in segments for step in range(s.length)]
    assert walked == stream[offset : offset + length]
    assert all(segment.length for segment in segments)
    assert len({segment.file for segment in segments}) == len(segments)
