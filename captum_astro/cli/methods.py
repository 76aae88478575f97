"""``captum-astro methods``."""

from __future__ import annotations

from rich.table import Table

from captum_astro.cli._common import examples
from captum_astro.cli._declared import declared
from captum_astro.cli._terminal import console


@examples("methods")
def methods() -> None:
    """List the methods."""
    table = Table("method", "family", "gradient", "source", box=None)
    for method in declared():
        table.add_row(method.name, method.family, "yes" if method.needs_gradient else "no", method.source)
    console.print(table)
