"""`python -m furymesh` is the `furymesh` command."""

from furymesh.cli.main import run

run()
