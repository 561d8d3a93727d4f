"""`replay`, `compare` and `report`: policies on recorded traffic, and reports for people.

Rules of this file: options, order and printing. `simulator.replay` runs the replays, `simulator.report` describes them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autoscaler.cli.options import POLICY, TRACE
from autoscaler.cli.output import end_of_part, errors_in_words, print_json, recording
from autoscaler.cli.replay_options import (
    AS_JSON,
    FAULTS,
    FORCE,
    NO_PAGE,
    OUT,
    SEED,
    Played,
    with_played,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autoscaler.cli.progress import Interruption
    from autoscaler.cloud.faults import Fault
    from autoscaler.simulator.replay.preparing import Replay, Wanted
    from autoscaler.simulator.replay.replaying import ReplayResult
    from autoscaler.simulator.report.card import Card, Entry
    from autoscaler.simulator.report.columns import Columns

ENGINE = Annotated[
    Literal["auto", "lanes", "loop"],
    typer.Option(
        help="lanes: fast; loop: the daemon itself, with a journal; auto: lanes if they can express the run."
    ),
]
TIMELINE = Annotated[Literal["csv", "parquet"], typer.Option("--timeline", help="Format of the timeline.")]


@with_played
def replay(
    policy: POLICY,
    trace: TRACE,
    played: Played = Played(),
    faults: FAULTS = None,
    seed: SEED = 1,
    engine: ENGINE = "auto",
    out: OUT = None,
    force: FORCE = False,
    form: TIMELINE = "csv",
    no_page: NO_PAGE = False,
    as_json: AS_JSON = False,
) -> None:
    """Run a policy on a recorded trace and show its cost and its shortages, against baselines."""
    from autoscaler.cli.progress import Bar, interruptible

    with errors_in_words("replay"):
        from autoscaler.simulator.replay import replaying
        from autoscaler.simulator.search.standings_process import RivalsApart

        wanted = played.wanted(seed, _faults(faults))
        if out is not None:
            _ready(out, force=force, with_page=not no_page)
        (prepared,) = _prepare((policy,), trace, played.kind, wanted)
        chosen, said = replaying.engine_for(prepared, engine)
        with interruptible() as interrupted:
            _forecast(prepared, chosen, interrupted, quiet=as_json)
            once = chosen == "lanes" and replaying.is_run_once(prepared)
            with RivalsApart(prepared, beside=once) as others:
                told = f"replaying {prepared.trace.name}"
                with Bar(told, quiet=as_json) as bar, _staged(out) as journal_dir:
                    ran = replaying.run(prepared, bar, interrupted, journal_dir, chosen)
                    _refuse_empty(ran, prepared)
                    _replace(out, journal_dir, force=force)
                lines = _write_timelines(out, {"": (prepared, ran)}, form)
                with Bar("replaying what else could have served", quiet=as_json) as bar:
                    rivals = others.result(bar, interrupted, ran.own)
        own = replaying.entry_of(prepared, ran, "this policy", rivals=rivals)
        card = replaying.card_of((own,), rivals)
        document = _document(prepared, ran, card, said)
        if out is not None:
            _write(out, document, lines, with_page=not no_page)
        _tell(document, card, out, as_json=as_json, with_page=not no_page)
        end_of_part(interrupted)


@with_played
def compare(
    files: Annotated[
        list[Path],
        typer.Argument(help="Two or more policy files, then the trace.", metavar="POLICY... TRACE"),
    ],
    played: Played = Played(),
    faults: FAULTS = None,
    seed: SEED = 1,
    engine: ENGINE = "auto",
    out: OUT = None,
    force: FORCE = False,
    form: TIMELINE = "csv",
    no_page: NO_PAGE = False,
    as_json: AS_JSON = False,
) -> None:
    """Run policies on the same trace and fleet with the same luck: score cards side by side, and where decisions differ."""
    from autoscaler.cli.progress import Bar, interruptible

    if len(files) < 3:
        raise typer.BadParameter(
            "give at least two policy files and then the trace", param_hint="POLICY... TRACE"
        )
    with errors_in_words("compare"):
        from autoscaler.simulator.replay import replaying
        from autoscaler.simulator.replay.differing import differences
        from autoscaler.simulator.replay.preparing import shared_luck
        from autoscaler.simulator.search.standings_process import RivalsApart

        *policies, trace = files
        names = _names(policies)
        wanted = played.wanted(seed, _faults(faults))
        if out is not None:
            for place in (out, *(out / name for name in names)):
                _ready(place, force=force, with_page=not no_page)
        replays = shared_luck(_prepare(tuple(policies), trace, played.kind, wanted))
        chosen, said = replaying.engine_for(replays[0], engine)
        if any(replaying.engine_for(one, engine)[0] == "loop" for one in replays):
            chosen = "loop"
        runs: dict[str, tuple[Replay, ReplayResult]] = {}
        with interruptible() as interrupted:
            _forecast(replays[0], chosen, interrupted, quiet=as_json)
            once = chosen == "lanes" and replaying.is_run_once(replays[0])
            with RivalsApart(replays[0], beside=once) as others:
                for name, one in zip(names, replays, strict=True):
                    if interrupted():
                        break
                    folder = None if out is None else out / name
                    with Bar(f"replaying {name}", quiet=as_json) as bar, _staged(folder) as journal_dir:
                        runs[name] = (one, replaying.run(one, bar, interrupted, journal_dir, chosen))
                        _refuse_empty(runs[name][1], one)
                        _replace(folder, journal_dir, force=force)
                own = next((ran.own for _, ran in runs.values()), None)
                runs = begun(runs)
                _replace(out, None, force=force)
                lines = _write_timelines(out, runs, form)
                with Bar("replaying what else could have served", quiet=as_json) as bar:
                    rivals = others.result(bar, interrupted, own)
            judged = _judged(runs, replays[0], rivals, interrupted, quiet=as_json)
        card = replaying.card_of(judged, rivals)
        shown = names[1] if len(runs) > 1 else names[0]
        document = _document(*runs[shown], card, said, _certainty(list(runs.items())))
        document["details"]["compared"] = [{"name": name, "folder": name} for name in runs]
        document["details"]["shown"] = shown
        if len(runs) > 1:
            (a, (_, ran_a)), (b, (_, ran_b)) = list(runs.items())[:2]
            document["differences"] = differences((a, ran_a.rows), (b, ran_b.rows))
        if out is not None:
            _write(out, document, lines, with_page=not no_page, shown=shown)
        _tell(document, card, out, as_json=as_json, with_page=not no_page)
        end_of_part(interrupted)


def begun(runs: dict[str, tuple[Replay, ReplayResult]]) -> dict[str, tuple[Replay, ReplayResult]]:
    """Return the runs, limited to the ticks that all of them have.

    Raises:
        KeyboardInterrupt: No run had begun.
    """
    from autoscaler.simulator.replay.replaying import same_span

    if not runs:
        raise KeyboardInterrupt
    return same_span(runs)


def _judged(
    runs: dict[str, tuple[Replay, ReplayResult]],
    first: Replay,
    rivals: tuple[Entry, ...],
    interrupted: Interruption,
    *,
    quiet: bool,
) -> list[Entry]:
    """Return the score card's column of each policy.

    The first policy is compared with the rivals, the others with their own optimum in hindsight and their own run without a warm pool.
    """
    from autoscaler.cli.progress import Bar
    from autoscaler.simulator.replay.replaying import entry_of

    judged = []
    for name, (one, ran) in runs.items():
        beside = rivals if one is first else ()
        with Bar(f"replaying {name} without a warm pool", quiet=quiet) as bar:
            judged.append(
                entry_of(
                    one, ran, name, name, beside, hindsight=bool(rivals), progress=bar, enough=interrupted
                )
            )
    return judged


def report(
    directory: Annotated[
        Path,
        typer.Argument(help="Folder written by `replay`, `compare` or `demo` with --out.", metavar="DIR"),
    ],
) -> None:
    """Rebuild report.html from report.json and the timeline beside it."""
    with errors_in_words("report"):
        from autoscaler.simulator.report.folder import rebuild

        typer.echo(f"{rebuild(directory)}")


def _faults(file: Path | None) -> tuple[Fault, ...]:
    if file is None:
        return ()
    from autoscaler.cloud.setup import read_faults

    return read_faults(file)


def _ready(out: Path, *, force: bool, with_page: bool) -> None:
    from autoscaler.simulator.report.folder import make_room
    from autoscaler.simulator.report.page import require_plotly

    if with_page:
        require_plotly()
    make_room(out, force=force)


def _staged(out: Path | None) -> AbstractContextManager[Path | None]:
    """Return a context with a temporary folder for the journal until the run is complete; None without an output folder."""
    from autoscaler.simulator.report.folder import staging

    return nullcontext() if out is None else staging(out)


def _replace(out: Path | None, staged: Path | None, *, force: bool) -> None:
    """Put a completed run in place of an earlier one, which stays until then."""
    from autoscaler.simulator.report.folder import replace

    if out is not None:
        replace(out, force=force, staged=staged)


def _prepare(policies: tuple[Path, ...], trace: Path, kind: str | None, wanted: Wanted) -> tuple[Replay, ...]:
    from autoscaler.config.loading import require_policy
    from autoscaler.simulator.replay.preparing import prepare, tick_for

    played = recording(trace, kind)
    tick_s = wanted.tick_s or tick_for(played)
    read = [require_policy(file, tick_s=tick_s) for file in policies]
    # All policies meet the same demand, also if they count on other capacities.
    wanted = replace(wanted, scaled_for_per_s=read[0].vm.capacity_per_s)
    return tuple(prepare(policy, file, played, wanted) for policy, file in zip(read, policies, strict=True))


def _forecast(
    one: Replay, engine: Literal["lanes", "loop"], interrupted: Interruption, *, quiet: bool
) -> None:
    """Compute the forecasts once, before a second process computes the rivals from them."""
    from autoscaler.cli.progress import Bar
    from autoscaler.simulator.replay.replaying import precompute_forecasts

    if engine == "lanes":
        with Bar(f"forecasting {one.trace.name}", quiet=quiet):
            precompute_forecasts(one, interrupted)


def _names(policies: list[Path]) -> tuple[str, ...]:
    """Return a short unique name per policy: the file's, with the folder's name if two are the same, with a number if they still are."""
    stems = [file.stem for file in policies]
    found: list[str] = []
    for file, stem in zip(policies, stems, strict=True):
        name = stem if stems.count(stem) == 1 else f"{file.resolve().parent.name}-{stem}"
        number, unique = 2, name
        while unique in found:
            unique, number = f"{name}-{number}", number + 1
        found.append(unique)
    return tuple(found)


def _refuse_empty(ran: ReplayResult, prepared: Replay) -> None:
    from autoscaler.errors import ConfigError
    from autoscaler.simulator.report.wording import span

    if len(ran.scored) < 2:
        if not ran.whole:
            raise KeyboardInterrupt
        raise ConfigError(
            f"nothing is left to score after a warm-up of {span(prepared.warm_up_s)}; replay a longer part"
        )


def _certainty(runs: Sequence[tuple[str, tuple[Replay, ReplayResult]]]) -> dict[str, Any]:
    """Return how certain the difference of each run to the first is, in words and numbers. Empty if there is only one run."""
    from autoscaler.simulator.replay.certainty import certainty, certainty_json, in_words

    (reference, (prepared, first)), *others = runs
    found = {
        name: certainty(first.scored, ran.scored, prepared.tick_s, prepared.seed) for name, (_, ran) in others
    }
    told = [told for name, each in found.items() if (told := in_words(each, f"Policy {name}", reference))]
    numbers = {name: certainty_json(each) for name, each in found.items()}
    return {"certainty": {"sentences": told, "against": reference, "policies": numbers}} if found else {}


def _document(
    prepared: Replay, ran: ReplayResult, card: Card, said: str, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    from dataclasses import asdict

    from autoscaler.simulator.replay.replaying import details_of
    from autoscaler.simulator.replay.timeline import REPORT_VERSION, totals
    from autoscaler.simulator.report.card import card_json
    from autoscaler.simulator.report.conclusion import conclude

    details = {**details_of(prepared, ran, said), **(more or {})}
    conclusion = conclude(card, details)
    return {
        "version": REPORT_VERSION,
        "conclusion": {"headline": f"{conclusion.headline}.", "sentences": list(conclusion.sentences)},
        "identity": asdict(prepared.identity),
        "totals": asdict(totals(ran.scored, prepared.tick_s)),
        "card": card_json(card),
        "details": details,
    }


def _write_timelines(
    out: Path | None, runs: dict[str, tuple[Replay, ReplayResult]], form: Literal["csv", "parquet"]
) -> dict[str, Columns]:
    """Write the timelines, while a second process still computes the rivals."""
    from autoscaler.simulator.report.folder import write_rows

    if out is None:
        return {}
    return {name: write_rows(out / name, ran.rows, one.tick_s, form) for name, (one, ran) in runs.items()}


def _write(
    out: Path, document: dict[str, Any], lines: dict[str, Columns], *, with_page: bool, shown: str = ""
) -> None:
    from autoscaler.simulator.report.folder import write_run

    others = dict(lines)
    columns = others.pop(shown)
    write_run(out, document, columns, others, with_page=with_page)


def _tell(
    document: dict[str, Any],
    card: Card,
    out: Path | None,
    *,
    as_json: bool,
    with_page: bool,
) -> None:
    from autoscaler.cli.replay_screen import print_run

    if as_json:
        print_json(document)
        return
    print_run(document, card)
    if out is not None:
        page = "report.html" if with_page else "report.json"
        fleet = document["details"]["fleet"]
        ticks = out / document["details"].get("shown", "")
        typer.echo(f"Read {out / page}, or ask `autoscaler explain {fleet} --state-dir {ticks} --at TIME`.")
