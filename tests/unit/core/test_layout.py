from furymesh.core.layout import Entry, EntryKind, Layout, Segment

FILE, EXECUTABLE, DIRECTORY = EntryKind


def test_files_lie_end_to_end() -> None:
    layout = Layout(
        [
            Entry("a", FILE, 10),
            Entry("b/c", EXECUTABLE, 5),
            Entry("empty", DIRECTORY, 0),
            Entry("z", FILE, 0),
        ]
    )
    assert layout.plain_size == 15
    assert [file.path for file in layout.files] == ["a", "b/c", "z"]
    assert layout.directories == ("empty",)
    assert layout.components(1) == ("b", "c")
    assert not layout.single
    assert list(layout.segments(8, 6)) == [Segment(0, 8, 2), Segment(1, 0, 4)]


def test_empty_files_take_no_part() -> None:
    layout = Layout(
        [Entry(str(number), FILE, size) for number, size in enumerate([0, 3, 0, 0, 4, 0])]
    )
    assert list(layout.segments(0, 7)) == [Segment(1, 0, 3), Segment(4, 0, 4)]
    assert list(layout.segments(3, 1)) == [Segment(4, 0, 1)]
    assert list(layout.segments(7, 0)) == []


def test_single_file_has_no_name() -> None:
    layout = Layout.of_file(7)
    assert layout.single
    assert layout.files == (Entry("", FILE, 7),)
    assert list(layout.segments(2, 5)) == [Segment(0, 2, 5)]


def test_nothing_at_all() -> None:
    assert list(Layout([]).segments(0, 0)) == []
    assert Layout([]).plain_size == 0
