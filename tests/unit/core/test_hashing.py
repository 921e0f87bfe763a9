import pytest

from furymesh.core.errors import InvalidManifestError, UsageError
from furymesh.core.hashing import HashAlgorithm


# Published values: the BLAKE3 paper's test vectors and FIPS 180-4's examples.
@pytest.mark.parametrize(
    ("algorithm", "data", "digest"),
    [
        (
            HashAlgorithm.BLAKE3,
            b"",
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        ),
        (
            HashAlgorithm.SHA256,
            b"abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
    ],
)
def test_known_digests(algorithm: HashAlgorithm, data: bytes, digest: str) -> None:
    assert algorithm.digest(data).hex() == digest
    assert algorithm.digest(memoryview(bytearray(data))).hex() == digest
    hasher = algorithm.hasher()
    hasher.update(data)
    assert hasher.digest().hex() == digest


def test_found_by_label_and_code() -> None:
    for algorithm in HashAlgorithm:
        assert HashAlgorithm.from_label(f" {algorithm.label.upper()}") is algorithm
        assert HashAlgorithm.from_code(algorithm.code) is algorithm
    assert [algorithm.code for algorithm in HashAlgorithm] == [1, 2]


def test_unknown_names_are_refused_by_kind_of_fault() -> None:
    with pytest.raises(UsageError, match="use blake3 or sha256"):
        HashAlgorithm.from_label("md5")
    with pytest.raises(InvalidManifestError, match="hash number 9"):
        HashAlgorithm.from_code(9)
