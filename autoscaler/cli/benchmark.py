"""`benchmark`: a policy against all peers at their best settings, over a folder of recorded demand.

Rules of this file: options, order and printing. `simulator.benchmark` runs the comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.options import PROCESSES
from autoscaler.cli.output import FAILED, INTERRUPTED, errors_in_words, print_json
from autoscaler.cli.replay_options import FORCE
from autoscaler.words import counted, some

if TYPE_CHECKING:
    from autoscaler.simulator.benchmark.entrants import Entrant
    from autoscaler.simulator.benchmark.folder import Outcome, Part

FOLDER = Annotated[
    Path | None,
    typer.Argument(help="Folder of traces with a manifest.csv (file,kind,interval_s).", metavar="FOLDER"),
]
EACH_VM = Annotated[
    bool,
    typer.Option(
        "--each-vm",
        help="Use the folder's per-VM tables instead of its series: each VM's utilisation becomes the demand of a fleet.",
    ),
]
GENERATED = Annotated[
    bool, typer.Option("--generated", help="Use five generated traces instead of a folder.")
]
SEED = Annotated[int, typer.Option(min=0, help="Seed of the generated traces.")]
ONLY = Annotated[
    str | None, typer.Option(help="Only series whose names start with one of these.", metavar="NAME,NAME")
]
SIZES = Annotated[
    str,
    typer.Option("--vms", help="Fleet sizes: VMs that the 99.9% quantile of demand needs.", metavar="N,N"),
]
POLICY = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="Policy file to run instead of a plain objective; needs --vary.", metavar="FILE"
    ),
]
VARY = Annotated[
    str | None,
    typer.Option(
        help="The policy field to vary, with its values: objective.shortage_price=2/h,10/h,50/h.",
        metavar="FIELD=VALUES",
    ),
]
PEERS_ONLY = Annotated[bool, typer.Option("--peers-only", help="Only the peers and the optimum, no policy.")]
AGAINST = Annotated[
    Path | None,
    typer.Option(help="Reuse peers and optimum from an earlier run's results.json.", metavar="FILE"),
]
OUT = Annotated[
    Path | None,
    typer.Option(
        help="Write results.json, results.csv, results.md, results.html and plots (fronts, regret, coverage .svg) here.",
        metavar="DIR",
    ),
]
NO_PAGE = Annotated[
    bool,
    typer.Option("--no-page", help="Skip results.html and the plots, which need plotly and matplotlib."),
]
AS_JSON = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of a table.")]


def benchmark(
    folder: FOLDER = None,
    each_vm: EACH_VM = False,
    generated: GENERATED = False,
    seed: SEED = 1,
    only: ONLY = None,
    sizes: SIZES = "40,8",
    policy: POLICY = None,
    vary: VARY = None,
    peers_only: PEERS_ONLY = False,
    against: AGAINST = None,
    processes: PROCESSES = 2,
    out: OUT = None,
    force: FORCE = False,
    no_page: NO_PAGE = False,
    as_json: AS_JSON = False,
) -> None:
    """Compare a policy with all peers at every setting, and with hindsight, on recorded demand."""
    from autoscaler.cli.progress import Bar, Lines

    with errors_in_words("benchmark"):
        from autoscaler.clock import SystemClock
        from autoscaler.simulator.benchmark.folder import Shared, run_parts
        from autoscaler.simulator.benchmark.peer_entries import RIVALS
        from autoscaler.simulator.report.wording import plural
        from autoscaler.simulator.search.executors import Processes

        if (folder is None) is not generated:
            raise typer.BadParameter("name a folder of traces, or pass --generated", param_hint="FOLDER")
        if each_vm and folder is None:
            raise typer.BadParameter("generated traces have no VMs; name a folder", param_hint="--each-vm")
        entrants = () if peers_only else (_entrant(policy, vary),)
        parts = _parts(folder, seed, only, against, each_vm=each_vm)
        shared = Shared(_sizes(sizes), tuple(rival.key for rival in RIVALS), entrants)
        if out is not None:
            _ready(out, force=force, with_page=not no_page)
        executor = Processes(processes) if processes > 1 and len(parts) > 1 else None
        what = f"{plural(len(parts), 'trace', 'traces')}, {len(RIVALS)} peers"
        lines = Lines(what, SystemClock(), quiet=as_json)
        with Bar(what, quiet=as_json) as bar:

            def on_part(share: float) -> None:
                bar(share)
                lines(share)

            # Not `interruptible`: Ctrl-C ends the current trace at once, because finishing it may take many minutes.
            outcome = run_parts(parts, shared, executor=executor, on_part=on_part)
        if not outcome.whole and not outcome.bouts:
            raise KeyboardInterrupt
        _tell(outcome, entrants, out, with_page=not no_page, as_json=as_json)
        _end(outcome, len(parts))


def _entrant(policy: Path | None, vary: str | None) -> Entrant:
    from autoscaler.simulator.benchmark.entrants import from_file, ours

    if policy is None and vary is None:
        return ours()
    if policy is None or vary is None:
        raise typer.BadParameter(
            "a policy needs its file and a field to vary: --policy FILE --vary FIELD=VALUES",
            param_hint="--policy",
        )
    return from_file(policy, vary)


def _parts(
    folder: Path | None, seed: int, only: str | None, against: Path | None, *, each_vm: bool
) -> list[Part]:
    from autoscaler.simulator.benchmark.document import read_bouts
    from autoscaler.simulator.benchmark.folder import Part, series_in, vms_in
    from autoscaler.simulator.benchmark.generated import generated

    names = tuple(name for name in (only or "").split(",") if name)
    known = {bout.trace: bout for bout in read_bouts(against)} if against is not None else {}
    if folder is None:
        made = generated(seed)
        unknown = [name for name in names if not any(trace.name.startswith(name) for trace in made)]
        if unknown:
            raise typer.BadParameter(
                f"no generated trace is called {', '.join(unknown)}; there are {', '.join(t.name for t in made)}",
                param_hint="--only",
            )
        traces = [t for t in made if not names or t.name.startswith(names)]
        return [Part(trace, known.get(trace.name)) for trace in traces]
    if each_vm:
        vms, unusable = vms_in(folder, names)
        if unusable:
            typer.echo(
                f"benchmark: {counted(len(unusable), 'VM')} that did almost nothing, or not for long, left out: "
                f"{some(unusable)}",
                err=True,
            )
        parts = [Part(trace) for trace in vms]
    else:
        parts = [Part(file) for file in series_in(folder, names)]
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


def _ready(out: Path, *, force: bool, with_page: bool) -> None:
    """Check that the results can be written there, before the long run begins.

    Raises:
        ConfigError: The results cannot be written there.
    """
    from autoscaler.errors import ConfigError
    from autoscaler.simulator.benchmark.document import RESULTS_JSON
    from autoscaler.simulator.benchmark.plots import require_matplotlib
    from autoscaler.simulator.report.page import require_plotly

    if with_page:
        require_plotly()
        require_matplotlib()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a directory for --out")
    if not force and (out / RESULTS_JSON).exists():
        raise ConfigError(f"{out} holds an earlier run; name another --out, or replace it with --force")


def _tell(
    outcome: Outcome, entrants: tuple[Entrant, ...], out: Path | None, *, with_page: bool, as_json: bool
) -> None:
    from autoscaler.simulator.benchmark.document import document_of

    document = document_of(outcome.bouts, partial=not outcome.whole, failed=outcome.failed)
    if out is not None:
        _write(outcome, entrants, document, out, with_page=with_page)
    for sentence in outcome.failed:
        typer.echo(f"benchmark: {sentence}", err=True)
    if as_json:
        print_json(document)
        return
    from autoscaler.cli.benchmark_screen import print_bouts

    print_bouts(outcome.bouts, [entrant.key for entrant in entrants])
    if out is not None:
        typer.echo(f"Read {out / ('results.html' if with_page and entrants else 'results.json')}")


def _write(
    outcome: Outcome, entrants: tuple[Entrant, ...], document: dict[str, Any], out: Path, *, with_page: bool
) -> None:
    from autoscaler.simulator.benchmark.document import RESULTS_JSON
    from autoscaler.simulator.benchmark.page import RESULTS_HTML, page_text
    from autoscaler.simulator.benchmark.peer_entries import PEERS
    from autoscaler.simulator.benchmark.plots import plots
    from autoscaler.simulator.benchmark.tables import RESULTS_CSV, RESULTS_MD, csv_text, markdown_text
    from autoscaler.simulator.replay.timeline import write_document, write_text

    write_document(out / RESULTS_JSON, document)
    write_text(out / RESULTS_CSV, csv_text(outcome.bouts))
    for entrant in entrants:
        write_text(out / RESULTS_MD, markdown_text(outcome.bouts, entrant.key, entrant.name, PEERS))
        if with_page:
            write_text(out / RESULTS_HTML, page_text(outcome.bouts, entrant.key, entrant.name, PEERS))
            for name, drawn in plots(outcome.bouts, entrant.key, entrant.name, PEERS).items():
                write_text(out / name, drawn)


def _end(outcome: Outcome, parts: int) -> None:
    if not outcome.whole:
        typer.echo(f"interrupted: {len(outcome.bouts)} of {parts} traces had finished", err=True)
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(FAILED)
