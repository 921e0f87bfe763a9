"""What the tests of relays share."""

from __future__ import annotations

import pytest

from furymesh.net import secure_link


@pytest.fixture
def addresses_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address of this host counts as a machine of its own."""
    monkeypatch.setattr(secure_link, "is_loopback", lambda host: False)
