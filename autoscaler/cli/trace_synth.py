"""`trace synth`: generates traffic from a few options or from a recipe.

Rules of this file: options and messages only; `simulator/traffic` generates the demand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.options import JSON, MANIFEST, NEW_TRACE, OVERWRITE
from autoscaler.cli.output import errors_in_words, moment, seconds, share
from autoscaler.cli.trace import (
    check_out,
    kind_of,
    write,
)

if TYPE_CHECKING:
    from autoscaler.simulator.traffic.parts import Part, Recipe

_PARTS = "Without a recipe"


def synth(
    out: NEW_TRACE,
    recipe: Annotated[
        Path | None,
        typer.Option(help="YAML file of parts; the options below then do not apply.", metavar="FILE"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random draws (default 1).", min=0)] = None,
    start_s: Annotated[
        float | None,
        typer.Option(
            "--start", parser=moment, help="Time of the first value (default: a Monday).", metavar="TIME"
        ),
    ] = None,
    length_s: Annotated[
        float | None,
        typer.Option(
            "--length", parser=seconds, help="Length of the trace (default 1d).", metavar="DURATION"
        ),
    ] = None,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval", parser=seconds, help="Length of an interval (default 1m).", metavar="DURATION"
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="count (default) or gauge.", metavar="count|gauge")] = None,
    level: Annotated[
        float,
        typer.Option(help="Work per second at the lowest point of the day.", min=0, rich_help_panel=_PARTS),
    ] = 600.0,
    daily: Annotated[
        float, typer.Option(help="Work per second that the day's peak adds.", min=0, rich_help_panel=_PARTS)
    ] = 1500.0,
    peak_at_s: Annotated[
        float,
        typer.Option(
            "--peak-at",
            parser=seconds,
            help="Time of the peak after midnight UTC.",
            metavar="DURATION",
            rich_help_panel=_PARTS,
        ),
    ] = 13 * 3600.0,
    weekend: Annotated[
        float,
        typer.Option(
            parser=share,
            help="Share of it that remains at weekends.",
            metavar="SHARE",
            rich_help_panel=_PARTS,
        ),
    ] = 1.0,
    trend: Annotated[
        float, typer.Option(help="Growth in per cent per day; may be negative.", rich_help_panel=_PARTS)
    ] = 0.0,
    crowds_per_day: Annotated[
        float,
        typer.Option(help="Flash crowds per day, at random times.", min=0, max=1000, rich_help_panel=_PARTS),
    ] = 0.0,
    crowd_height: Annotated[
        float,
        typer.Option(help="Mean work per second that a crowd adds.", min=0, rich_help_panel=_PARTS),
    ] = 3000.0,
    outages_per_day: Annotated[
        float,
        typer.Option(
            help="Gaps in the recording per day, at random times.", min=0, max=1000, rich_help_panel=_PARTS
        ),
    ] = 0.0,
    dispersion: Annotated[
        float,
        typer.Option(
            help="Variance over mean of counts: 1 is Poisson, higher is burstier.",
            min=1,
            rich_help_panel=_PARTS,
        ),
    ] = 20.0,
    variation: Annotated[
        float,
        typer.Option(
            parser=share,
            help="Standard deviation over mean of a gauge.",
            metavar="SHARE",
            rich_help_panel=_PARTS,
        ),
    ] = 0.0,
    force: OVERWRITE = False,
    manifest: MANIFEST = True,
    as_json: JSON = False,
) -> None:
    """Generate traffic: daily and weekly cycles, trends, crowds, ramps, batches, outages, noise; repeatable by seed."""
    with errors_in_words("trace synth"):
        check_out(out, force=force, manifest=manifest)
        from autoscaler.simulator.traffic.parts import (
            Crowds,
            Daily,
            Level,
            Outages,
            Recipe,
            Trend,
            Weekly,
            generate,
        )
        from autoscaler.simulator.traffic.recipe import read_recipe

        if recipe is not None:
            chosen = read_recipe(recipe)
        else:
            parts: list[Part] = [Level(level), Daily(daily, peak_at_s), Weekly(weekend), Trend(trend / 100)]
            if crowds_per_day:
                parts.append(Crowds(crowds_per_day, crowd_height))
            if outages_per_day:
                parts.append(Outages(outages_per_day, 900.0))
            chosen = Recipe(dispersion=dispersion, variation=variation, parts=tuple(parts))
        given = {
            "seed": seed, "start_s": start_s, "length_s": length_s, "interval_s": interval_s, "kind": kind_of(kind)
        }  # fmt: skip
        chosen = _changed(chosen, given)
        write(out, generate(chosen), force=force, manifest=manifest, as_json=as_json, notes=_notes(chosen))


def _changed(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """Return the recipe with the values given on the command line in place of its own."""
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def _notes(recipe: Recipe) -> list[str]:
    from autoscaler.simulator.traffic.parts import PARTS

    names = {of: name for name, of in PARTS.items()}
    parts = ", ".join(names[type(part)] for part in recipe.parts)
    return [f"generated from seed {recipe.seed}: {parts}; this is no recording"]
