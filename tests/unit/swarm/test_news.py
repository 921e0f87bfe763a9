"""News of chunks: merged, told once, dropped with the membership."""

from __future__ import annotations

from typing import Any

import pytest

from furymesh.core.ids import FileId
from furymesh.swarm.news import News
from furymesh.wire import codec
from furymesh.wire import messages as m

ONE, OTHER = FileId(bytes(32)), FileId(bytes(31) + b"1")
NUMBERS = {ONE: 1, OTHER: 2}


class Link:
    """Remembers what it is told to send."""

    def __init__(self) -> None:
        self.sent: list[m.Message] = []
        self.session = self

    def number(self, file_id: FileId) -> int:
        return NUMBERS[file_id]

    def send(self, message: m.Message) -> None:
        self.sent.append(message)


@pytest.fixture
def link() -> Any:
    return Link()


def test_news_of_a_share_is_one_message(link: Any) -> None:
    news = News()
    news.add(link, ONE, [3])
    news.add(link, OTHER, [7])
    news.add(link, ONE, [5, 4])
    assert link.sent == []
    news.tell(link)
    assert link.sent == [m.Have(1, (3, 5, 4)), m.Have(2, (7,))]
    news.tell(link)
    assert len(link.sent) == 2


def test_who_left_a_share_is_not_told_of_it(link: Any) -> None:
    news = News()
    news.add(link, ONE, [3])
    news.add(link, OTHER, [7])
    news.drop(link, ONE)
    news.drop(link, ONE)
    news.tell(link)
    assert link.sent == [m.Have(2, (7,))]


def test_much_news_goes_in_several_messages(link: Any) -> None:
    news = News()
    news.add(link, ONE, list(range(codec.MAX_INDICES + 1)))
    news.tell(link)
    assert [len(message.chunks) for message in link.sent] == [codec.MAX_INDICES, 1]
