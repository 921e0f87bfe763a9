"""The messages as values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from furymesh.wire import messages as m


def test_reasons_read_as_words() -> None:
    assert m.Reason.NOT_HELD.words == "not held"
    assert m.Reason.SHUTTING_DOWN.words == "shutting down"
    assert [int(reason) for reason in m.Reason] == list(range(13))


def test_messages_are_values() -> None:
    assert m.Have(1, (2, 3)) == m.Have(1, (2, 3))
    assert len({m.Ping(1), m.Ping(1), m.Pong(1), m.Have(1, (2,)), m.Lost(1, (2,))}) == 4
    with pytest.raises(FrozenInstanceError):
        m.Ping(1).nonce = 2  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        m.Ping(1).other = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", m.ShareMessage.__args__, ids=lambda kind: kind.__name__)
def test_messages_about_a_share_start_with_its_number(kind: type[m.Message]) -> None:
    assert next(iter(kind.__dataclass_fields__)) == "share"


def test_a_message_is_about_the_link_or_about_a_share() -> None:
    link, share = set(m.LinkMessage.__args__), set(m.ShareMessage.__args__)
    assert not link & share
    assert link | share == set(m.Message.__args__)
