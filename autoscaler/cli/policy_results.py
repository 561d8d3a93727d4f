"""`policy results`: a folder of policies, each on traffic of its kind, as a page.

Rules of this file: options and printing. `simulator.scenarios.shipped` runs the policies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.output import errors_in_words, write_text


def policy_results(
    folder: Annotated[Path, typer.Argument(help="Folder of policies.", metavar="DIR")] = Path("policies"),
    recipes: Annotated[
        Path, typer.Option(help="Folder of traffic recipes, named after the policies.", metavar="DIR")
    ] = Path("simulations/recipes"),
    out: Annotated[
        Path | None, typer.Option(help="Output file (default: RESULTS.md in the folder).", metavar="FILE")
    ] = None,
) -> None:
    """Replay each policy of a folder on generated traffic of its kind, compare it with peers, and write a page."""
    with errors_in_words("policy"):
        from autoscaler.cli.progress import Bar
        from autoscaler.simulator.scenarios.shipped import page, section, shipped_in

        sections, found = [], shipped_in(folder, recipes)
        for number, shipped in enumerate(found):
            with Bar(f"replaying {shipped.name}", quiet=False) as bar:
                sections.append(section(shipped))
                bar((number + 1) / len(found))
        target = out or folder / "RESULTS.md"
        write_text(target, page(sections))
        typer.echo(f"{target}")
