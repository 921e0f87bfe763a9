"""Running work under signals."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import trio

from furymesh.cli import jobs, output
from furymesh.cli.exits import Interrupted
from furymesh.cli.jobs import Job, run_job


def test_a_result_comes_back() -> None:
    async def work(job: Job) -> int:
        await trio.lowlevel.checkpoint()
        return 7

    assert run_job(work) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_lets_the_work_clean_up(number: signal.Signals) -> None:
    cleaned = []

    async def work(job: Job) -> None:
        try:
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            cleaned.append(job.interrupted)

    with pytest.raises(Interrupted):
        run_job(work)
    assert cleaned == [True]


def test_a_second_signal_at_once_is_one_wish() -> None:
    async def work(job: Job) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()

    with pytest.raises(Interrupted):
        run_job(work)


def test_insisting_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(jobs, "INSIST_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", left.append)

    async def work(job: Job) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.sleep_forever()

    with pytest.raises(Interrupted):
        run_job(work)
    assert left == [130]


def test_work_that_finishes_in_spite_of_a_signal_counts() -> None:
    async def work(job: Job) -> str:
        job.interrupt()
        return "done"

    assert run_job(work) == "done"


def test_errors_pass_through() -> None:
    async def work(job: Job) -> None:
        raise ValueError("x")

    with pytest.raises(ExceptionGroup) as caught:
        run_job(work)
    assert caught.group_contains(ValueError)


def test_a_failing_callback_ends_the_job_from_outside() -> None:
    calls = []

    def show(item: int) -> None:
        calls.append(item)
        raise BrokenPipeError

    async def work(job: Job) -> None:
        guarded = job.guard(show)
        guarded(1)
        guarded(2)
        await trio.sleep_forever()

    with pytest.raises(BrokenPipeError):
        run_job(work)
    assert calls == [1]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_echo_of_ctrl_c_is_taken_back_at_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream: terminal)

    async def work(job: Job) -> None:
        sys.stderr.write("^C")
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    with pytest.raises(Interrupted):
        run_job(work)
    assert capsys.readouterr().err == ("^C\r\x1b[K" if terminal else "^C")
