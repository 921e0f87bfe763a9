"""The one table from errors to exit codes, and the words for each."""

from __future__ import annotations

import pytest

from furymesh.cli.exits import Interrupted, exit_code, main_cause, one_line, reason
from furymesh.core import errors

CODES = {
    errors.FuryMeshError: 1,
    errors.UsageError: 2,
    errors.ConfigError: 2,
    errors.AmbiguousIdError: 2,
    errors.NotFoundError: 1,
    errors.AlreadyRunningError: 5,
    errors.WrongKeyError: 4,
    errors.PassphraseError: 1,
    errors.PassphraseNeededError: 2,
    errors.PeerError: 1,
    errors.ProtocolError: 1,
    errors.HandshakeError: 1,
    errors.UnavailableError: 3,
    errors.LinkClosedError: 3,
    errors.LocalDataError: 1,
    errors.InvalidManifestError: 1,
    errors.DamagedResumeDataError: 1,
    errors.SourceChangedError: 1,
    errors.VerificationError: 4,
    errors.EnvironmentFault: 1,
    errors.DiskFullError: 1,
    errors.InternalError: 1,
    errors.IllegalStateError: 1,
    KeyboardInterrupt: 130,
    Interrupted: 130,
    KeyError: 1,
    OSError: 1,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_exit_codes(kind: type[BaseException], code: int) -> None:
    assert exit_code(kind("x")) == code


def test_every_error_of_the_project_is_in_this_test() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type)}
    assert defined <= set(CODES)


def test_reason_is_one_escaped_line() -> None:
    assert reason(errors.UsageError("a\nb \x1b[31m")) == "a b \\x1b[31m"
    assert one_line("  a \t b ") == "a b"


def test_reason_of_what_nobody_raised_on_purpose() -> None:
    assert reason(OSError(13, "Permission denied", "/x")) == (
        "the system refused /x: permission denied"
    )
    told = reason(KeyError("x" * 500))
    assert told.startswith("internal error (KeyError: 'xxx")
    assert len(told) < 400
    assert "--debug" in told
    assert reason(KeyboardInterrupt()) == "interrupted"
    assert reason(Interrupted("kept")) == "kept"
    assert "memory" in reason(MemoryError())


def test_main_cause_prefers_what_was_raised_on_purpose() -> None:
    wanted = errors.UnavailableError("nobody")
    group = BaseExceptionGroup("", [ValueError(), ExceptionGroup("", [KeyError(), wanted])])
    assert main_cause(group) is wanted
    assert main_cause(wanted) is wanted
    first = ValueError()
    assert main_cause(ExceptionGroup("", [first, KeyError()])) is first
