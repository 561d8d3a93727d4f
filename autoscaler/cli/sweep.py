"""`sweep`: many variants of a policy on one trace, and which of them are not dominated.

Rules of this file: options, order and printing. `simulator.search.sweep` runs the variants, `simulator.search.landscape`
evaluates them. `recommend` takes its variants from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autoscaler.cli.options import POLICY, PROCESSES, TRACE
from autoscaler.cli.output import FAILED, INTERRUPTED, errors_in_words, print_json, recording
from autoscaler.cli.replay_options import AS_JSON, FORCE, NO_PAGE, OUT, SEED, Played, with_played

if TYPE_CHECKING:
    from autoscaler.simulator.replay.preparing import Replay, Wanted
    from autoscaler.simulator.search.executors import Executor
    from autoscaler.simulator.search.landscape import Form, Landscape
    from autoscaler.simulator.search.sweep import SweepResult
    from autoscaler.simulator.search.variants import Axis, Base, Between, Variant

VARY = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        help="A field with its values: warm_pool.spare=0%..40%/5 or guards.cooldown_in=1m,5m or plant.start=20s; "
        "repeatable.",
        metavar="FIELD=VALUES",
    ),
]
RANDOM = Annotated[
    int | None,
    typer.Option(
        "--random",
        min=1,
        max=1_000_000,
        help="Draw this many variants at random instead of taking all combinations.",
    ),
]
SCHEDULER = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler to compute on (extra dask).", metavar="ADDRESS"),
]
RESULTS = Annotated[Literal["csv", "parquet"], typer.Option("--results", help="Format of the results.")]

_WIDEST_PART, _NARROWEST_PART, _PARTS = 1000, 64, 4
"""Bounds of the number of variants per part, and the number of parts aimed at. Wide parts are quicker, because a long trace is cut less
often. Narrow parts show progress and lose less when interrupted. The results are the same.
"""


@with_played
def sweep(
    policy: POLICY,
    trace: TRACE,
    vary: VARY = None,
    random: RANDOM = None,
    played: Played = Played(),
    seed: SEED = 1,
    processes: PROCESSES = 1,
    scheduler: SCHEDULER = None,
    out: OUT = None,
    force: FORCE = False,
    form: RESULTS = "csv",
    no_page: NO_PAGE = False,
    as_json: AS_JSON = False,
) -> None:
    """Run every combination of values of some fields, and show those that no other beats in both cost and unserved work."""
    with errors_in_words("sweep"):
        if not vary:
            raise typer.BadParameter(
                "say what to vary, for example --vary reactive.headroom=10%..60%/6", param_hint="--vary"
            )
        executor = executor_for(processes, scheduler)
        if out is not None:
            make_place(out, force=force, with_page=not no_page)
        tried = tried_on(policy, trace, played.kind, played.wanted(seed), vary, random)
        found = run_variants(tried, executor, max(processes, 1), quiet=as_json)
        if out is not None:
            make_way(out, force=force)
        tell(tried, found, out, form, with_page=not no_page, as_json=as_json)
        if found.interrupted:
            typer.echo(
                f"interrupted: {len(found.variants)} of {len(tried.variants)} variants had finished", err=True
            )
            raise typer.Exit(INTERRUPTED)
        if found.unfinished:
            for lost in found.unfinished:
                typer.echo(f"sweep: {lost}", err=True)
            raise typer.Exit(FAILED)


@dataclass(frozen=True, slots=True)
class Tried:
    """The variants to run, and what to run them on.

    Attributes:
        replay: The current policy and the traffic it runs on.
        base: What variants are derived from.
        variants: The variants; the current policy is the first.
        current: The current policy's values of the fields that are varied, by path.
    """

    replay: Replay
    base: Base
    variants: tuple[Variant, ...]
    current: dict[str, object]


def tried_on(
    policy: Path,
    trace: Path,
    kind: str | None,
    wanted: Wanted,
    vary: Sequence[str] | None,
    random: int | None,
) -> Tried:
    """Return the variants to run, each validated.

    Args:
        policy: Policy file.
        trace: Trace file.
        kind: Kind of the trace's values; None takes it from the manifest.
        wanted: Part of the trace and properties of the VMs.
        vary: Fields and values to vary; without any, values near the current policy are chosen.
        random: Number of variants to draw at random; None takes all combinations.

    Raises:
        ConfigError: The policy or a variant is invalid.
        TraceError: The trace cannot be used.
    """
    from autoscaler.simulator.search.axes import current_values, read_axis
    from autoscaler.simulator.search.nearby import nearby
    from autoscaler.simulator.search.variants import Axis, grid, sampled

    replay, base = prepared(policy, trace, kind, wanted)
    axes: list[Axis | Between] = (
        [read_axis(each, base, at_random=random is not None) for each in vary]
        if vary
        else list(nearby(base.policy))
    )
    if random is not None:
        made = tuple(sampled(base, axes, random, wanted.seed))
    else:
        made = tuple(grid(base, [axis for axis in axes if isinstance(axis, Axis)]))
    asked = len(made)
    made = tuple({tuple(each.values.items()): each for each in made}.values())
    if len(made) < asked:
        note = f"{len(made)} of the {asked:,} variants differ; each was run once"
        replay = replace(replay, notes=(*replay.notes, note))
    base, replay = _with_room(base, replay, made, wanted)
    if any("bounds.maximum" in each.values for each in made):
        made = tuple(base.variant(each.values) for each in made)
    current = current_values(base, [axis.path for axis in axes])
    if random is None:
        # The current policy is always first; a second copy among the variants would be counted twice.
        as_it_is = base.variant({})
        others = tuple(each for each in made if each.values != current or each.policy != as_it_is.policy)
        made = others or made
    return Tried(replay, base, (base.variant({}), *made), current)


def prepared(policy: Path, trace: Path, kind: str | None, wanted: Wanted) -> tuple[Replay, Base]:
    """Return the current policy on the trace, and the base from which variants are derived."""
    from autoscaler.config.loading import require_policy
    from autoscaler.simulator.lanes.matching import as_probed
    from autoscaler.simulator.replay.preparing import prepare, tick_for
    from autoscaler.simulator.search.variants import Base

    played = recording(trace, kind)
    tick_s = wanted.tick_s or tick_for(played)
    replay = prepare(require_policy(policy, tick_s=tick_s), policy, played, wanted)
    return replay, Base(as_probed(replay.fitted), replay.plant, replay.tick_s)


def _with_room(base: Base, replay: Replay, made: Sequence[Variant], wanted: Wanted) -> tuple[Base, Replay]:
    """Return both with enough VMs for the widest bounds among the variants, unless `--vms` gives a number."""
    import math

    widest = max((each.policy.bounds.maximum for each in made), default=0)
    if wanted.vms is not None or widest <= replay.policy.bounds.maximum:
        return base, replay
    needed = math.ceil(1.2 * replay.trace.peak_per_s / replay.policy.vm.capacity_per_s)
    vms = max(replay.plant.vms, min(widest, needed))
    plant = replace(replay.plant, vms=vms)
    note = f"{vms} VMs exist, so that the widest bounds.maximum can be used (--vms)"
    return replace(base, plant=plant), replace(replay, plant=plant, notes=(*replay.notes, note))


def executor_for(processes: int, scheduler: str | None) -> Executor | None:
    """Return the executor to compute with; None for this process."""
    if scheduler is not None:
        from autoscaler.simulator.search.dask_executor import Dask

        return Dask(scheduler)
    if processes > 1:
        from autoscaler.simulator.search.executors import Processes

        return Processes(processes)
    return None


def part_width(variants: int, processes: int) -> int:
    """Return the number of variants per part."""
    return max(_NARROWEST_PART, min(_WIDEST_PART, -(-variants // max(_PARTS, processes))))


def make_place(out: Path, *, force: bool, with_page: bool) -> None:
    """Check that the results can be written there, before the long run begins.

    Raises:
        ConfigError: The results cannot be written there.
    """
    from autoscaler.errors import ConfigError
    from autoscaler.simulator.report.folder import make_room
    from autoscaler.simulator.report.page import require_plotly
    from autoscaler.simulator.search.landscape import RESULTS_CSV, RESULTS_PARQUET

    if with_page:
        require_plotly()
    make_room(out, force=force)
    if not force and any((out / name).exists() for name in (RESULTS_CSV, RESULTS_PARQUET)):
        raise ConfigError(f"{out} holds an earlier sweep; name another --out, or replace it with --force")


def make_way(out: Path, *, force: bool) -> None:
    """Remove an earlier run, if it may be replaced, now that its replacement is ready."""
    from autoscaler.simulator.report.folder import replace as replace_run

    replace_run(out, force=force)


def run_variants(tried: Tried, executor: Executor | None, processes: int, *, quiet: bool) -> SweepResult:
    """Return the results of all variants, or of those that were done when the user interrupted.

    Raises:
        KeyboardInterrupt: The user interrupted before any was done.
    """
    from autoscaler.cli.progress import Bar
    from autoscaler.errors import ConfigError
    from autoscaler.simulator.search.sweep import SweepCourse, run_sweep

    replay = tried.replay
    course = SweepCourse(replay.trace, replay.grid, replay.seed, replay.warm_up_ticks)
    if course.warm_up_ticks >= replay.ticks:
        raise ConfigError("nothing is left to score after the warm-up; sweep over a longer part")
    with Bar(f"{len(tried.variants)} variants on {replay.trace.name}", quiet=quiet) as bar:
        found = run_sweep(
            tried.variants,
            course,
            executor=executor,
            part_variants=part_width(len(tried.variants), processes),
            elasticity=True,
            on_part=lambda done, of: bar(done / of),
        )
    if not found.variants:
        if found.interrupted:
            raise KeyboardInterrupt
        found.require_all()
    return found


def tell(
    tried: Tried, found: SweepResult, out: Path | None, form: Form, *, with_page: bool, as_json: bool
) -> None:
    """Write the results to the folder `out` if there is one, and print them."""
    from autoscaler.simulator.search.landscape import landscape, write_results

    judged = landscape(found, tried.current)
    if judged.current is None:
        # Without the current policy there is nothing to compare with, so only the figures are kept.
        if out is not None:
            typer.echo(f"Read {write_results(out, judged, form)}")
        return
    document = _document(tried, found, judged)
    if out is not None:
        from autoscaler.simulator.report.folder import write_run

        write_results(out, judged, form)
        write_run(out, document, None, {}, with_page=with_page)
    if as_json:
        print_json(document)
        return
    from autoscaler.cli.sweep_screen import print_sweep

    print_sweep(document, judged)
    if out is not None:
        typer.echo(f"Read {out / ('report.html' if with_page else 'report.json')}")


def _document(tried: Tried, found: SweepResult, judged: Landscape) -> dict[str, Any]:
    from autoscaler.simulator.report.card import card_from
    from autoscaler.simulator.report.conclusion import conclude, conclude_sweep
    from autoscaler.simulator.search.landscape import document_of

    missing = [str(each) for each in found.unfinished]
    document = document_of(tried.replay, judged, beside=None, cautions=missing, partial=bool(missing))
    own = conclude(card_from(document, "the sweep"), document["details"])
    conclusion = conclude_sweep(document["sweep"], own)
    document["conclusion"] = {
        "headline": f"{conclusion.headline}.",
        "sentences": list(conclusion.sentences),
    }
    return document
