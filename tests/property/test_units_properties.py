from hypothesis import given
from hypothesis import strategies as st

from furymesh.core.errors import UsageError
from furymesh.core.units import MAX_SIZE, format_size, parse_size


@given(st.integers(0, 9 * 10**18))
def test_a_printed_size_reads_back_within_its_rounding(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size * 0.05


@given(st.integers(0, MAX_SIZE))
def test_plain_numbers_are_exact(size: int) -> None:
    assert parse_size(str(size)) == size


@given(st.text(max_size=30))
def test_only_usage_errors_escape(text: str) -> None:
    try:
        assert 0 <= parse_size(text) <= MAX_SIZE
    except UsageError as error:
        reason = str(error)
        assert reason.isprintable()
