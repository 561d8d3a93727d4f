"""`autoscaler scenario`: runs scenarios and checks their expected outcomes.

Exit codes: 0 all expectations hold, 1 an expectation is broken or a file is invalid, 2 wrong usage, 130 interrupted.

Rules of this file: options, order and printing. `simulator.scenarios` plays the scenarios.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.options import JSON, PAGE
from autoscaler.cli.output import FAILED, errors_in_words, write_text

if TYPE_CHECKING:
    from autoscaler.simulator.scenarios.judging import Verdict
    from autoscaler.simulator.scenarios.playing import ScenarioResult

PLACES = Annotated[
    list[Path], typer.Argument(help="Scenario files, or folders of them.", metavar="FILE|DIR...")
]


def scenario_run(
    places: PLACES,
    out: Annotated[
        Path | None, typer.Option(help="Write the timeline of each scenario here.", metavar="DIR")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Play scenarios with the real daemon on virtual time, and compare the outcome with the expectations."""
    with errors_in_words("scenario"):
        broken = 0
        document: list[dict[str, Any]] = []
        for path in _files(places):
            played, verdicts = _play(path, quiet=as_json)
            broken += sum(not verdict.holds for verdict in verdicts)
            document.append(_document(played, verdicts))
            if not as_json:
                _tell(played, verdicts)
            if out is not None:
                from autoscaler.simulator.replay.timeline import write_timeline

                write_timeline(out / f"{path.stem}.csv", played.rows)
        if as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            verb = "is" if broken == 1 else "are"
            typer.echo(f"{broken} {verb} broken" if broken else "All expectations hold")
        if broken:
            raise typer.Exit(FAILED)


def scenario_results(
    folder: Annotated[Path, typer.Argument(help="Folder of scenarios.", metavar="DIR")] = Path("simulations"),
    out: PAGE = None,
) -> None:
    """Play all scenarios of a folder and write a page with their results."""
    with errors_in_words("scenario"):
        from autoscaler.simulator.scenarios.page import page

        target = out or folder / "RESULTS.md"
        text = page([_play(path, quiet=False) for path in _files([folder])])
        write_text(target, text)
        typer.echo(f"{target}")


def _play(path: Path, *, quiet: bool) -> tuple[ScenarioResult, tuple[Verdict, ...]]:
    from autoscaler.cli.progress import Bar
    from autoscaler.simulator.scenarios.judging import judge
    from autoscaler.simulator.scenarios.playing import play
    from autoscaler.simulator.scenarios.reading import read_scenario

    scenario = read_scenario(path)
    with Bar(f"playing {scenario.name}", quiet=quiet) as bar:
        played = play(scenario, bar)
    return played, judge(played)


def _files(places: list[Path]) -> list[Path]:
    from autoscaler.errors import ConfigError

    found: list[Path] = []
    for place in places:
        here = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
        if not here:
            raise ConfigError(f"{place}: there is no scenario (*.yaml) in this folder")
        found += here
    return found


def _tell(played: ScenarioResult, verdicts: tuple[Verdict, ...]) -> None:
    scenario = played.scenario
    typer.echo(f"{scenario.name}: {scenario.given.story.strip()}")
    for verdict in verdicts:
        typer.echo(f"  {verdict}")
    if not all(verdict.holds for verdict in verdicts):
        from autoscaler.simulator.scenarios.judging import worst_shortages

        if shortages := worst_shortages(played):
            typer.echo(f"  {shortages}")
        typer.echo("  --out DIR writes the timeline: what was wanted, did and cost in each tick, and why")
    typer.echo("")


def _document(played: ScenarioResult, verdicts: tuple[Verdict, ...]) -> dict[str, Any]:
    from autoscaler.simulator.replay.timeline import jsonable

    answer = jsonable(
        {
            "scenario": played.scenario.name,
            "file": str(played.scenario.path),
            "holds": all(verdict.holds for verdict in verdicts),
            "expectations": [
                {
                    "figure": verdict.expectation.figure,
                    "value": verdict.value,
                    "at_most": verdict.expectation.at_most,
                    "at_least": verdict.expectation.at_least,
                    "from_s": verdict.expectation.from_s,
                    "to_s": verdict.expectation.to_s,
                    "holds": verdict.holds,
                    "broken": verdict.broken,
                }
                for verdict in verdicts
            ],
        }
    )
    return dict(answer)
