"""`benchmark`: a policy against all peers at their best settings, over a folder of recorded demand.

Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted (the traces that were finished are shown
and written, marked as a part).

Rules of this file: options, order and printing. What is run is `simulator.benchmark`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.output import FAILED, INTERRUPTED, errors_in_words

if TYPE_CHECKING:
    from autoscaler.simulator.benchmark.entrants import Entrant
    from autoscaler.simulator.benchmark.folder import Outcome, Part

FOLDER = Annotated[
    Path | None,
    typer.Argument(help="Folder of traces with a manifest.csv (file,kind,interval_s).", metavar="FOLDER"),
]
ONLY = Annotated[
    str | None, typer.Option(help="Only these series, by the beginnings of their names.", metavar="NAME,NAME")
]
SIZES = Annotated[
    str,
    typer.Option("--vms", help="Sizes of fleet: VMs that the 99.9% quantile of demand needs.", metavar="N,N"),
]
AGAINST = Annotated[
    Path | None,
    typer.Option(help="Take peers and optimum from an earlier run's results.json.", metavar="FILE"),
]
PROCESSES = Annotated[int, typer.Option(min=1, max=256, help="Processes of this machine that compute.")]
OUT = Annotated[Path | None, typer.Option(help="Leave the results here.", metavar="DIR")]
AS_JSON = Annotated[bool, typer.Option("--json", help="Print the results as JSON, no table.")]


def benchmark(
    folder: FOLDER = None,
    only: ONLY = None,
    sizes: SIZES = "40,8",
    against: AGAINST = None,
    processes: PROCESSES = 2,
    out: OUT = None,
    as_json: AS_JSON = False,
) -> None:
    """Run the policy and all peers at every setting over recorded demand, and hold them against hindsight."""
    from autoscaler.cli.progress import Bar, interruptible

    with errors_in_words("benchmark"):
        from autoscaler.simulator.benchmark.document import RESULTS_JSON, document_of, write_document
        from autoscaler.simulator.benchmark.entrants import ours
        from autoscaler.simulator.benchmark.folder import Shared, run_parts
        from autoscaler.simulator.benchmark.rivals import RIVALS
        from autoscaler.simulator.search.executors import Processes

        entrants = (ours(),)
        parts = _parts(folder, only, against)
        shared = Shared(_sizes(sizes), tuple(rival.key for rival in RIVALS), entrants)
        executor = Processes(processes) if processes > 1 and len(parts) > 1 else None
        with (
            interruptible() as interrupted,
            Bar(f"{len(parts)} traces, {len(RIVALS)} peers", quiet=as_json) as bar,
        ):
            outcome = run_parts(parts, shared, executor=executor, on_part=bar, enough=interrupted)
        document = document_of(outcome.bouts)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_document(out / RESULTS_JSON, document)
        if as_json:
            from autoscaler.simulator.replay.timeline import jsonable

            typer.echo(json.dumps(jsonable(document), indent=2))
        else:
            _print(outcome, entrants)
        _end(outcome)


def _parts(folder: Path | None, only: str | None, against: Path | None) -> list[Part]:
    from autoscaler.simulator.benchmark.document import read_bouts
    from autoscaler.simulator.benchmark.folder import Part, series_in

    if folder is None:
        raise typer.BadParameter("name a folder of traces", param_hint="FOLDER")
    known = {bout.trace: bout for bout in read_bouts(against)} if against is not None else {}
    parts = [Part(file) for file in series_in(folder, tuple((only or "").split(",")) if only else ())]
    return [Part(part.source, known.get(part.name)) for part in parts]


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or not all(1 <= size <= 10_000 for size in sizes):
        raise typer.BadParameter(
            f"{text!r} are not numbers of VMs from 1 to 10,000, for example 40,8", param_hint="--vms"
        )
    return sizes


def _print(outcome: Outcome, entrants: tuple[Entrant, ...]) -> None:
    from autoscaler.cli.benchmark_screen import print_bouts

    print_bouts(outcome.bouts, entrants)
    for sentence in outcome.failed:
        typer.echo(f"benchmark: {sentence}", err=True)


def _end(outcome: Outcome) -> None:
    if not outcome.whole:
        typer.echo(f"interrupted: {len(outcome.bouts)} traces had finished", err=True)
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(FAILED)
