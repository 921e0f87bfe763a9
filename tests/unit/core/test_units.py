import pytest

from furymesh.core.errors import UsageError
from furymesh.core.units import (
    MAX_SIZE,
    format_duration,
    format_rate,
    format_size,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("256K", 256_000),
        ("12M", 12_000_000),
        ("12MB", 12_000_000),
        ("12MiB", 12 << 20),
        ("12mi", 12 << 20),
        (" 1.5 G ", 1_500_000_000),
        ("1.5GiB", 3 << 29),
        ("2T", 2 * 10**12),
        ("100 B", 100),
        (str(MAX_SIZE), MAX_SIZE),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *["", "M", "-1", "+1", "1.5", "1,5M", "12X", "1e9", "1.M", ".5M", "0x10", "12 MiBB"],
        *["١٢", "9E9E", "10E", str(MAX_SIZE + 1), "9" * 1000, "nan", "inf", "12M/s", "1.5iB"],
    ],
)
def test_refused_sizes(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a size|is too large"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_200_000, "1.2 MB"),
        (2**40, "1.1 TB"),
        (12 * 10**18, "12.0 EB"),
        (12 * 10**21, "12000.0 EB"),
    ],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


def test_format_rate() -> None:
    assert format_rate(1_234_567.8) == "1.2 MB/s"
    assert format_rate(0.4) == "0 B/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (4.2, "4.2s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (125, "2m 05s"),
        (3599.7, "1h 00m"),
        (3725, "1h 02m"),
        (86399.9, "1d 00h"),
        (3 * 86400 + 4 * 3600, "3d 04h"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
