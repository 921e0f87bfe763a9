import tempfile
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from furymesh.core.geometry import Geometry
from furymesh.core.sealing import Sealer, cipher_size
from furymesh.storage.content import Content
from furymesh.storage.scan import scan

CHUNK = 16 * 1024
SIZES = st.lists(st.sampled_from([0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 40_000]), max_size=5)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.booleans(), st.data())
def test_any_range_equals_a_slice_of_the_whole(
    sizes: list[int], sealed: bool, data: st.DataObject
) -> None:
    sealer = Sealer(bytes(32)) if sealed else None
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = [Random(number).randbytes(size) for number, size in enumerate(sizes)]
        for number, content in enumerate(files):
            (root / f"f{number}").write_bytes(content)
        stream = b"".join(files)
        if sealer:
            room = CHUNK - 28
            stream = b"".join(
                sealer.seal(at // room, stream[at : at + room])
                for at in range(0, len(stream), room)
            )
        found = scan(root)
        plain_size = found.layout.plain_size
        geometry = Geometry(cipher_size(plain_size, CHUNK) if sealed else plain_size, CHUNK)
        assert geometry.size == len(stream)
        opened = Content(root, found.layout, geometry, sealer, found.facts)
        for chunk in range(geometry.chunk_count):
            start = data.draw(st.integers(0, geometry.length(chunk)))
            length = data.draw(st.integers(0, geometry.length(chunk) - start))
            out = bytearray(length)
            opened.read_into(chunk, start, memoryview(out))
            assert out == stream[chunk * CHUNK + start :][:length]
        opened.close()
