import pytest
import typer

from fuzzfarm.cli.failures import ExitCode, UsageError, explain
from fuzzfarm_shared.errors import (
    BatchConflictError,
    BatchNotFoundError,
    BatchNotSealedError,
    DuplicateKeyError,
    FarmAuthenticationError,
    FarmUnreachableError,
    QueueFullError,
    SettingsError,
    SignatureError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FarmUnreachableError("u", "no server answers"), ExitCode.UNREACHABLE),
        (FarmAuthenticationError("u", "wrong password"), ExitCode.UNREACHABLE),
        (SettingsError("setting x"), ExitCode.USAGE),
        (UsageError("bad"), ExitCode.USAGE),
        (BatchNotFoundError("k"), ExitCode.USAGE),
        (BatchConflictError("k", "more"), ExitCode.USAGE),
        (DuplicateKeyError("k"), ExitCode.USAGE),
        (typer.BadParameter("no"), ExitCode.USAGE),
        (BatchNotSealedError("k", 3), ExitCode.FAILURES),
        (QueueFullError(3, 2), ExitCode.FAILURES),
        (SignatureError("wrong signature"), ExitCode.FAILURES),
        (ExceptionGroup("g", [ExceptionGroup("h", [BatchNotFoundError("k")])]), ExitCode.USAGE),
        (ZeroDivisionError("a\nb"), ExitCode.FAILURES),
    ],
)
def test_every_error_has_an_exit_code_and_one_sentence(error, code):
    found, sentence = explain(error)
    assert found == code
    assert sentence
    assert "\n" not in sentence


def test_an_unexpected_error_says_how_to_see_more():
    assert "FUZZFARM_DEBUG=1" in explain(ZeroDivisionError("x"))[1]


def test_control_characters_in_an_error_do_not_reach_the_terminal():
    assert "\x1b" not in explain(UsageError("no target \x1b[2J"))[1]
