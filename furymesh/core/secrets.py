"""What may be repeated of a text that somebody typed: it may be, or hold, a key.

Whoever mistypes a link or puts one where something else belongs finds it in the
error message, and the message in a log. So parsers repeat only the beginning of
what they refuse (`quoted`), and what leaves the program goes through `redacted`.
"""

from __future__ import annotations

import re

MAX_QUOTED = 80  # characters; enough to find the word again that was mistyped
MAX_RUN = 16  # of a key's alphabet; half a content key, and longer than most words

# Both base64 alphabets. A file id or node id is cut as well: eight characters name it.
_RUN = re.compile(rf"[A-Za-z0-9+/_=-]{{{MAX_RUN + 1},}}")
_KEY_FIELD = re.compile(r"(key(?:=|%3[dD]))[^&\s'\"]+", re.IGNORECASE)
# 32 bytes in base64url are 43 characters; some may be lost, and others stick to them.
# Whoever gives a file such a name will not see it in messages. Fingerprints of SSH
# keys look alike and are there to be compared.
_FINGERPRINT = "SHA256:"
_BARE_KEY = re.compile(rf"{_FINGERPRINT}[A-Za-z0-9+/]{{43}}(?![\w+/-])|[A-Za-z0-9_-]{{40,}}")


def quoted(text: str) -> str:
    """`text` in quotes, cut, and with every run of characters that could be a key cut."""
    short = _RUN.sub(lambda run: run.group()[:8] + "…", _KEY_FIELD.sub(r"\1…", text))
    return repr(short if len(short) <= MAX_QUOTED else short[:MAX_QUOTED] + "…")


def redacted(text: str) -> str:
    """`text` without the content keys in it, as a link's field or by themselves."""
    return _BARE_KEY.sub(_unless_a_word, _KEY_FIELD.sub(r"\1…", text))


def _unless_a_word(match: re.Match[str]) -> str:
    text = match.group()
    if text.startswith(_FINGERPRINT):
        return text
    # 40 random characters of 64 lack capitals or small letters once in a hundred million.
    return text if text.lower() == text or text.upper() == text else "…"
