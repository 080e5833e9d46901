"""What a person hears when a store was mended as it was opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from demos.store import DemoStore


def tell_recovery(store: DemoStore) -> None:
    """Says on standard error which episodes came back from their journals, and which journals make none."""
    for line in store.recovery.lines():
        click.echo(f"{store.path}: {line}", err=True)
