"""What messages repeat of the texts that people mistype: never a key."""

from __future__ import annotations

import base64
from random import Random

import pytest

from furymesh.core.errors import UsageError
from furymesh.core.link import Address, Link
from furymesh.core.secrets import quoted, redacted

FILE_ID = "ab" * 32
SEEDS = 200


def key_of(seed: int) -> str:
    return base64.urlsafe_b64encode(Random(seed).randbytes(32)).decode().rstrip("=")


def test_short_words_are_repeated_as_they_are() -> None:
    assert quoted("12 bananas") == "'12 bananas'"
    assert quoted("host:99999") == "'host:99999'"


def test_ids_are_cut_to_what_names_them() -> None:
    assert quoted(FILE_ID + "0") == "'abababab…'"


def test_long_texts_are_cut() -> None:
    assert len(quoted("a b " * 1000)) < 100


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_parser_repeats_the_key_of_a_mistyped_link(seed: int) -> None:
    key = key_of(seed)
    for text in (
        key,
        f"furymesh:{key}",
        f"furymesh:{FILE_ID}key={key}",
        f"furymesh:1234key={key}",
        f"furymesh:{FILE_ID}&key={key}",
        f"furymesh:{FILE_ID}?key={key}A",
        f"furymesh:{FILE_ID}?key={key}&key={key}",
        f"furymesh:{FILE_ID}?peer=key={key}",
        f"furymesh:{FILE_ID}?peer=host:1?key={key}",
        f"furymesh:{FILE_ID[:-1]}?key={key}",
    ):
        with pytest.raises(UsageError) as caught:
            Link.parse(text)
        assert key not in str(caught.value)
        assert key[9:] not in str(caught.value)
        with pytest.raises(UsageError) as caught:
            Address.parse(text)
        assert key[9:] not in str(caught.value)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_keys_are_taken_out_of_any_text(seed: int) -> None:
    key = key_of(seed)
    for text in (
        key,
        f"no {key}: here",
        f"'?name=a&key={key}'",
        f"KEY={key}&peer=a",
        f"key%3D{key}",
        f"no option --{key}",
        f"a?name=b&key{key}",
        key[:-2],
    ):
        assert key not in redacted(text)


def test_all_else_stays() -> None:
    for text in (
        f"{FILE_ID} is key to {'a' * 43}",
        "/srv/very-long-names-with-dashes-and-small-letters",
        "wrong key: get the whole link",
        "host key SHA256:jZ8kYQm2hJ3xA0bN5vT7cR1wE4sD6fG9hK2lP8oI3uY is not known",
    ):
        assert redacted(text) == text
