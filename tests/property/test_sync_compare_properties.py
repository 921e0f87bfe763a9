"""Whole sessions of folder sync in memory: what is decided leads to the client's folder."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.errors import InvalidManifestError
from furymesh.core.paths import check_path, check_table
from furymesh.sync.compare import Comparison, Do, Part, Task
from furymesh.sync.names import is_reserved
from tests.unit.sync.held import File, HeldModel

NAME = st.sampled_from(["a", "b", "c", "A", "é", "e\u0301", "d.txt"])
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
CONTENT = st.sampled_from([b"", b"1", b"2", b"33", b"44", b"55", b"666"])
FILE = st.builds(File, CONTENT, st.integers(0, 2), st.sampled_from([0o644, 0o600]))


def is_tree(paths: list[str]) -> bool:
    try:
        check_table(paths)
    except InvalidManifestError:
        return False
    return True


def has_no_nesting(files: dict[str, File]) -> bool:
    return not any(path.startswith(f"{other}/") for path in files for other in files)


CLIENT = st.dictionaries(PATH, FILE, max_size=8).filter(lambda files: is_tree(list(files)))
SERVER = st.dictionaries(PATH, FILE, max_size=8).filter(has_no_nesting)


class SessionModel:
    """One session, its server and its client in memory."""

    def __init__(
        self,
        client: dict[str, File],
        held: HeldModel,
        known: set[str],
        parts: dict[str, tuple[bytes, int]],
        mirror: bool,
    ) -> None:
        self.client = client
        self.held = held
        self.known = known
        self.parts = {path: (content, size) for path, (content, size) in parts.items()}
        self.comparison = Comparison(held, self.part, mirror=mirror)
        self.refused: set[str] = set()
        self.sent: set[str] = set()

    def part(self, path: str) -> Part | None:
        if path not in self.parts:
            return None
        content, size = self.parts[path]
        return Part(size, File(content).sha256)

    def run(self, paths: list[str], page: int) -> None:
        for at in range(0, len(paths), page):
            infos = [
                self.client[path].info(path, hashed=path in self.known)
                for path in paths[at : at + page]
            ]
            self.held.hashed.update(self.comparison.unhashed(infos))
            tasks = self.comparison.decide(infos)
            before = {path: self.held.files[path] for path in self.held.hashed & {*self.held}}
            again = [
                task.path for task in tasks if not self.do(task, self.client[task.path], before)
            ]
            if again:
                self.known.update(again)
                self.run(again, page)

    def do(self, task: Task, wanted: File, before: dict[str, File]) -> bool:
        """Carry a task out; False if the file has to be hashed first.

        `before` is what was held, and hashed, when it was decided on.
        """
        path, held = task.path, self.held.files
        if task.do is Do.SKIP:
            assert held[path] == wanted
        elif task.do is Do.TOUCH:
            assert held[path].content == wanted.content
            assert held[path] != wanted
        elif task.do is Do.COPY:
            # By now another may be there: then the copy fails, and the file is sent.
            assert before[task.source].content == wanted.content
            assert task.source != path
        elif task.do is Do.CONTINUE:
            content, size = self.parts[path]
            assert task.offset == size
            assert content[:size] + wanted.content[size:] == wanted.content
        elif task.do is Do.WHOLE:
            if path in self.known and wanted.content:
                assert wanted.content not in {file.content for file in before.values()}
            self.sent.add(path)
        elif task.do is Do.REFUSE:
            self.refused.add(path)
            return True
        if task.do is Do.HASH:
            assert path not in self.known
            return False
        if task.do is not Do.LATER:
            held[path] = wanted
            self.held.hashed.add(path)
        return True

    def remove(self) -> None:
        for path in self.comparison.removals():
            if path not in self.client and not path.endswith("/"):  # of folders it knows nothing
                del self.held.files[path]
        self.run([info.path for info in self.comparison.waiting], 100)


@settings(max_examples=300, deadline=None)
@given(
    client=CLIENT,
    server=SERVER,
    mirror=st.booleans(),
    page=st.integers(1, 4),
    data=st.data(),
)
def test_a_session_makes_the_folder_what_the_client_has(
    client: dict[str, File], server: dict[str, File], mirror: bool, page: int, data: st.DataObject
) -> None:
    subset = st.sets(st.sampled_from(sorted({*client, *server} or {""})))
    hashed = data.draw(subset, label="hashes the server knows") & server.keys()
    known = data.draw(subset, label="hashes the client knows") & client.keys()
    parts = data.draw(
        st.dictionaries(PATH, st.tuples(CONTENT, st.integers(0, 3)), max_size=3), label="parts"
    )
    parts = {path: (content, min(size, len(content))) for path, (content, size) in parts.items()}
    session = SessionModel(client, HeldModel(server, hashed), known, parts, mirror)
    session.run(sorted(client), page)
    if mirror:
        session.remove()
        assert session.refused == set()
        assert session.held.files == client
    else:
        for path in session.refused:
            obstacles = {held for held in server if held.startswith(f"{path}/")}
            obstacles |= {held for held in server if path.startswith(f"{held}/")}
            assert obstacles
        accepted = {path: file for path, file in client.items() if path not in session.refused}
        assert {path: session.held.files[path] for path in accepted} == accepted
        kept = server.keys() - accepted.keys()
        assert {path: session.held.files[path] for path in kept} == {p: server[p] for p in kept}


@settings(max_examples=100, deadline=None)
@given(files=CLIENT, page=st.integers(1, 4))
def test_a_second_session_with_nothing_changed_sends_nothing(
    files: dict[str, File], page: int
) -> None:
    session = SessionModel(files, HeldModel(files), set(files), {}, mirror=True)
    session.run(sorted(files), page)
    session.remove()
    assert session.sent == session.refused == set()
    assert session.held.files == files


@settings(max_examples=300, deadline=None)
@given(paths=st.lists(PATH | st.text("aAé/.\\\0 x", max_size=8) | st.text(max_size=6), max_size=12))
def test_the_paths_let_in_are_those_that_make_one_tree_everywhere(paths: list[str]) -> None:
    """`check_table` refuses a list as a whole; here the later one of two goes."""
    comparison = Comparison(HeldModel({}))
    accepted: list[str] = []
    for path in paths:
        (task,) = comparison.decide([File(b"x").info(path)])
        fits = is_tree([*accepted, path]) and not is_reserved(path)
        assert (task.do is not Do.REFUSE) == fits, path
        if fits:
            check_path(path)
            accepted.append(path)
        else:
            assert task.reason.isprintable()
    assert comparison.listed == len(accepted)
