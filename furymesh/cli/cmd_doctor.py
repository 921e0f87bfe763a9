"""`furymesh doctor`: what would keep a node from working well here."""

from __future__ import annotations

from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings
from furymesh.cli.output import width

if TYPE_CHECKING:
    from furymesh.node.doctor import Finding

EXAMPLES = """
furymesh doctor
furymesh doctor --config ./config.yaml --json
"""


def command(
    context: typer.Context,
    json: Json = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Check what a node needs on this machine, and say what to do.

    That is its directories, clock, port, router, and the ways to find peers. Takes up
    to ten seconds; nothing it tries stays. Ends with 1 if there is a problem.
    """
    from furymesh.cli.jobs import Job, run_job
    from furymesh.cli.output import plural, say, say_json
    from furymesh.core.errors import EnvironmentFault
    from furymesh.node.doctor import Verdict, examine

    settled = settings(context, config, data_dir)
    problems = 0

    async def work(job: Job) -> None:
        nonlocal problems
        async for finding in examine(settled):
            problems += finding.verdict is Verdict.PROBLEM
            if json:
                say_json(_record(finding))
            else:
                say(_line(finding))

    run_job(work)
    if problems:
        raise EnvironmentFault(f"{plural(problems, 'problem')} found: see above")


def _record(finding: Finding) -> dict[str, object]:
    return {
        "check": finding.what,
        "verdict": finding.verdict.value,
        "text": finding.text,
        "advice": finding.advice,
    }


def _line(finding: Finding) -> str:
    """The finding, and below it the advice, each filled to the width of the terminal."""
    texts = [(f"{finding.verdict:8} {finding.what}: {finding.text}", 9)]
    if finding.advice:
        texts.append((f"{'':8} → {finding.advice}", 11))
    columns = width()
    if columns is None:
        return "\n".join(text for text, _ in texts)
    filled = partial(fill, width=columns, break_long_words=False, break_on_hyphens=False)
    return "\n".join(filled(text, subsequent_indent=" " * indent) for text, indent in texts)
