"""Reading parts of a file: what a source of chunks needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from furymesh.core.errors import EnvironmentFault, NotFoundError, SourceChangedError
from furymesh.sftp import AsyncConnection
from tests.sftp.conftest import LONG_AGO, MakeFile
from tests.sftp.servers import Server

SIZE = 9_000_000


def test_parts_are_read_from_anywhere_and_at_once(server: Server, make_file: MakeFile) -> None:
    source = make_file("source", SIZE)
    data = source.read_bytes()
    parts = [(0, SIZE), (SIZE - 1, 1), (123_456, 5_000_000), (4_194_304, 4_194_304), (7, 0)]
    read: dict[tuple[int, int], bytes] = {}

    async def call() -> None:
        async with (
            AsyncConnection(**server.address) as connection,
            connection.open_file(str(source)) as file,
        ):
            assert (file.size, file.modified) == (SIZE, LONG_AGO)

            async def fetch(part: tuple[int, int]) -> None:
                read[part] = await file.read(*part)

            async with trio.open_nursery() as nursery:
                for part in parts:
                    nursery.start_soon(fetch, part)

    trio.run(call)
    assert read == {(at, length): data[at : at + length] for at, length in parts}


def test_reading_on_after_a_cancelled_read(server: Server, make_file: MakeFile) -> None:
    source = make_file("source", SIZE)

    async def call() -> None:
        async with (
            AsyncConnection(**server.address) as connection,
            connection.open_file(str(source)) as file,
        ):
            for moment in (0.0, 0.001, 0.005):
                with trio.move_on_after(moment):
                    await file.read(0, SIZE)
            assert await file.read(5, 5) == source.read_bytes()[5:10]

    trio.run(call)


def test_the_end_of_the_file_and_what_is_no_file_are_told(
    server: Server, make_file: MakeFile, tmp_path: Path
) -> None:
    source = make_file("source", 100)

    async def call() -> None:
        async with AsyncConnection(**server.address) as connection:
            async with connection.open_file(str(source)) as file:
                with pytest.raises(SourceChangedError, match="shorter"):
                    await file.read(50, 51)
                assert await file.read(50, 50)
            for path, error in ((tmp_path, EnvironmentFault), (tmp_path / "no", NotFoundError)):
                with pytest.raises(error):
                    async with connection.open_file(str(path)):
                        pass

    trio.run(call)
