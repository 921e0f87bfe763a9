from __future__ import annotations

import pytest

from furymesh.core.errors import UsageError
from furymesh.sync.compare import Comparison, Do, Part, Task, check_removals
from furymesh.sync.entries import HASH_FIRST, FileInfo, empty_folder
from tests.unit.sync.held import File, HeldModel

OLD, NEW = File(b"old"), File(b"new")
LARGE = FileInfo("large", HASH_FIRST, 5, 0o644)


def compared(held: dict[str, File], *, mirror: bool = False) -> Comparison:
    return Comparison(HeldModel(held), mirror=mirror)


def one(comparison: Comparison, info: FileInfo) -> Task:
    (task,) = comparison.decide([info])
    return task


# --- files --------------------------------------------------------------------


def test_what_is_the_same_is_left_alone() -> None:
    assert one(compared({"a": OLD}), OLD.info("a")) == Task(Do.SKIP, "a")


def test_another_time_or_mode_alone_is_only_set() -> None:
    for other in (OLD._replace(mtime_ns=6), OLD._replace(mode=0o600)):
        assert one(compared({"a": OLD}), other.info("a")) == Task(Do.TOUCH, "a")


def test_another_content_is_sent_whatever_size_and_time_say() -> None:
    assert one(compared({"a": OLD}), NEW.info("a")) == Task(Do.WHOLE, "a")


def test_a_new_file_is_sent_without_having_been_hashed() -> None:
    assert one(compared({}), NEW.info("a", hashed=False)).do is Do.WHOLE
    assert one(compared({"b": File(b"1234")}), NEW.info("a", hashed=False)).do is Do.WHOLE


def test_the_hash_is_asked_for_where_it_may_spare_sending() -> None:
    assert one(compared({"a": OLD}), OLD.info("a", hashed=False)).do is Do.HASH
    # A copy of another, perhaps.
    assert one(compared({"b": OLD}), NEW.info("a", hashed=False)).do is Do.HASH
    # A part of it must be found again.
    assert one(compared({}), LARGE).do is Do.HASH
    assert one(compared({}), LARGE._replace(size=HASH_FIRST - 1)).do is Do.WHOLE
    part = Comparison(HeldModel({}), lambda path: Part(2, NEW.sha256))
    assert one(part, NEW.info("a", hashed=False)).do is Do.HASH


def test_a_file_that_was_hashed_is_decided_on_again() -> None:
    comparison = compared({"b": NEW})
    assert one(comparison, NEW.info("a", hashed=False)).do is Do.HASH
    assert one(comparison, NEW.info("a")) == Task(Do.COPY, "a", source="b")
    assert one(comparison, NEW.info("a")).do is Do.REFUSE  # and not once more
    comparison.reopen("a")
    assert one(comparison, OLD.info("a")).do is Do.WHOLE
    assert comparison.listed == 1


def test_a_renamed_or_copied_file_is_copied_here() -> None:
    held = {"old/name": NEW, "a": OLD}
    assert one(compared(held), NEW.info("new/name")) == Task(Do.COPY, "new/name", source="old/name")
    assert one(compared(held), NEW.info("a")) == Task(Do.COPY, "a", source="old/name")


def test_an_empty_file_is_neither_copied_nor_hashed() -> None:
    empty = File(b"")
    assert one(compared({"b": empty}), empty.info("a", hashed=False)).do is Do.WHOLE
    assert one(compared({"a": empty}), empty.info("a", hashed=False)).do is Do.SKIP


def test_a_part_is_gone_on_from_only_if_it_is_of_the_same_content() -> None:
    def part(path: str) -> Part | None:
        return {
            "same": Part(2, NEW.sha256),
            "whole": Part(3, NEW.sha256),
            "other": Part(2, OLD.sha256),
            "none": Part(0, NEW.sha256),
            "long": Part(4, NEW.sha256),
        }.get(path)

    comparison = Comparison(HeldModel({}), part)
    assert one(comparison, NEW.info("same")) == Task(Do.CONTINUE, "same", offset=2)
    assert one(comparison, NEW.info("whole")) == Task(Do.CONTINUE, "whole", offset=3)
    for path in ("other", "none", "long", "unknown"):
        assert one(comparison, NEW.info(path)).do is Do.WHOLE


# --- hashes that the server lacks ---------------------------------------------


def test_held_files_are_hashed_where_that_may_spare_sending() -> None:
    held = HeldModel({"a": OLD, "b": OLD, "c": NEW, "d": File(b"four")}, hashed=["c"])
    comparison = Comparison(held)
    assert comparison.unhashed([OLD.info("a")]) == ["a"]
    assert comparison.unhashed([OLD.info("x")]) == ["a", "b"]
    assert comparison.unhashed([OLD.info("x"), OLD.info("b")]) == ["a", "b"]
    assert comparison.unhashed([NEW.info("x")]) == []  # c has it
    assert comparison.unhashed([NEW.info("c")]) == []
    assert comparison.unhashed([File(b"12345").info("a")]) == []
    assert comparison.unhashed([OLD.info("a", hashed=False)]) == []


# --- paths --------------------------------------------------------------------


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("a", "A"),
        ("é", "e\u0301"),
        ("d/x", "D/y"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b", "A"),
        ("A", "a/b"),
        ("a/b/c", "A/b"),
    ],
)
def test_of_paths_that_cannot_all_be_the_later_is_refused(paths: tuple[str, str]) -> None:
    comparison = compared({})
    first, second = comparison.decide([NEW.info(path) for path in paths])
    assert first.do is Do.WHOLE
    assert second.do is Do.REFUSE
    assert second.reason.isprintable()
    assert comparison.listed == 1


def test_a_refused_path_leaves_no_trace() -> None:
    comparison = compared({})
    assert one(comparison, NEW.info("x")).do is Do.WHOLE
    assert one(comparison, NEW.info("new/sub/../y")).do is Do.REFUSE
    assert one(comparison, NEW.info("X/deep/file")).do is Do.REFUSE  # below the file x
    assert one(comparison, NEW.info("x2/deep/file")).do is Do.WHOLE
    assert one(comparison, NEW.info("deep")).do is Do.WHOLE


def test_what_is_in_the_way_is_said() -> None:
    comparison = compared({"a": OLD, "d/x": OLD})
    below, above = comparison.decide([NEW.info("a/b/c"), NEW.info("d")])
    assert below.do is above.do is Do.REFUSE
    assert below.reason == ('"a" is a file on the server: remove it there, or sync with --mirror')
    assert above.reason == ('"d" is a folder on the server: remove it there, or sync with --mirror')


def test_a_mirror_decides_after_the_removals_on_what_has_something_in_the_way() -> None:
    held = HeldModel({"a": OLD, "d/x": NEW})
    comparison = Comparison(held, mirror=True)
    infos = [OLD.info("a/b"), NEW.info("d", hashed=False)]
    assert [task.do for task in comparison.decide(infos)] == [Do.LATER, Do.LATER]
    assert comparison.waiting == infos
    assert comparison.removals() == ["a", "d/x", "d/"]
    del held.files["a"]
    again = comparison.decide(comparison.waiting)
    assert again[0].do is Do.WHOLE
    assert again[1].do is Do.REFUSE
    assert again[1].reason == '"d" is a folder on the server: remove it there'
    assert comparison.listed == 2


def test_an_empty_folder_is_made_unless_it_is_there() -> None:
    comparison = compared({"d/x": OLD, "f": OLD})
    folders = [empty_folder(path) for path in ("new/in/", "d/", "f/", "f/in/")]
    tasks = comparison.decide(folders)
    assert [task.do for task in tasks] == [Do.FOLDER, Do.SKIP, Do.REFUSE, Do.REFUSE]
    assert tasks[2].reason.startswith('"f" is a file on the server')
    assert comparison.listed == 0


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["d/", "d/"], "listed twice"),
        (["d/", "D/"], "has its place"),
        (["d", "d/"], "has its place"),
        (["d/", "d"], "has its place"),
        (["d", "d/e/"], "has its place"),
    ],
)
def test_empty_folders_make_one_tree_with_files(paths: list[str], reason: str) -> None:
    infos = [empty_folder(p) if p.endswith("/") else OLD.info(p) for p in paths]
    first, second = compared({}).decide(infos)
    assert first.do is not Do.REFUSE
    assert second.do is Do.REFUSE
    assert reason in second.reason


def test_an_empty_folder_has_nothing_else() -> None:
    for info in (OLD.info("d/"), empty_folder("d/")._replace(mtime_ns=1)):
        (task,) = compared({}).decide([info])
        assert task.reason == '"d/" has what no empty folder has'


def test_a_mirror_makes_empty_folders_after_the_removals_which_may_drop_them() -> None:
    comparison = compared({"d/x": OLD, "gone/in/y": OLD}, mirror=True)
    (task,) = comparison.decide([empty_folder("d/")])
    assert task.do is Do.LATER
    assert comparison.removals() == ["d/x", "gone/in/y", "gone/in/", "gone/"]
    (task,) = comparison.decide(comparison.waiting)
    assert task.do is Do.SKIP


# --- removals -----------------------------------------------------------------


def test_what_was_not_listed_is_to_be_removed() -> None:
    comparison = compared({"a": OLD, "b": NEW, "C": OLD}, mirror=True)
    comparison.decide([NEW.info("b"), OLD.info("c")])
    assert comparison.removals() == ["a", "C"]


def test_what_was_renamed_is_not_lost() -> None:
    comparison = compared({"a": OLD, "b": NEW}, mirror=True)
    comparison.decide([OLD.info("moved/a")])
    removals = comparison.removals()
    assert removals == ["a", "b"]
    assert comparison.lost(removals) == 1
    assert comparison.lost(["gone meanwhile"]) == 0


@pytest.mark.parametrize(
    ("lost", "held", "listed"),
    [(0, 100, 0), (0, 0, 0), (20, 20, 1), (20, 30, 10), (50, 100, 50), (21, 42, 1)],
)
def test_removals_as_they_happen_every_day(lost: int, held: int, listed: int) -> None:
    check_removals(lost, held, listed)


@pytest.mark.parametrize(
    ("lost", "held", "listed"), [(1, 1, 0), (5, 100, 0), (21, 41, 20), (51, 100, 49)]
)
def test_an_archive_is_not_emptied_by_accident(lost: int, held: int, listed: int) -> None:
    with pytest.raises(UsageError, match="nothing was removed") as raised:
        check_removals(lost, held, listed)
    assert "--mirror-force" in str(raised.value)
    check_removals(lost, held, listed, force=True)
