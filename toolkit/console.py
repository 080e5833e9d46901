"""Tables and lists of facts on the console."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool, empty: str) -> None:
    """Prints a table.

    Args:
        rows: Values by column, the same columns in each.
        as_json: Print JSON instead.
        empty: What to say if there are no rows.
    """
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        click.echo(empty)
    else:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE)
        for name in rows[0]:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(shown(value) for value in row.values()))
        # A pipe has no width, and folded words cannot be searched for
        console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
        console.print(table)


def print_facts(facts: dict[str, Any]) -> None:
    """Prints one fact a line.

    Args:
        facts: Values by name.
    """
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {shown(value)}")


def shown(value: Any) -> str:
    """A value as a person reads it: "-" for nothing, six digits of a number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
