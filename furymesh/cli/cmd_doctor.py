"""`furymesh doctor`: what would keep a node from working well here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from furymesh.cli.options import ConfigFile, DataDir, Json, settings

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
        raise EnvironmentFault(f"{plural(problems, 'problem')} found: see what is said of each")


def _record(finding: Finding) -> dict[str, object]:
    return {
        "check": finding.what,
        "verdict": finding.verdict.value,
        "text": finding.text,
        "advice": finding.advice,
    }


def _line(finding: Finding) -> str:
    line = f"{finding.verdict:8} {finding.what}: {finding.text}"
    return f"{line}\n{'':8} → {finding.advice}" if finding.advice else line
