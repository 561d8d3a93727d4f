"""`recommend`: what to change in a policy, if anything, judged on traffic not used for the choice.

Exit codes: 0 done, whatever the verdict; 1 could not be done, 2 wrong usage, 130 interrupted (the finished variants are
judged and shown, and the result is marked as a part).

Rules of this file: options, order and printing. `simulator.search` has the rest: `walkforward` and `worlds` run the variants,
`recommending` draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.options import POLICY, PROCESSES, TRACE
from autoscaler.cli.output import FAILED, INTERRUPTED, errors_in_words, print_json
from autoscaler.cli.replay_options import AS_JSON, FORCE, NO_PAGE, OUT, SEED, Played, with_played
from autoscaler.cli.sweep import (
    RANDOM,
    RESULTS,
    SCHEDULER,
    VARY,
    executor_for,
    make_place,
    make_way,
    tried_on,
)

if TYPE_CHECKING:
    from autoscaler.cli.sweep import Tried
    from autoscaler.simulator.lanes.outlooks import OutlookCache
    from autoscaler.simulator.search.executors import Executor
    from autoscaler.simulator.search.landscape import Landscape
    from autoscaler.simulator.search.limits import Limit
    from autoscaler.simulator.search.recommending import Advice
    from autoscaler.simulator.search.sweep import SweepCourse
    from autoscaler.simulator.search.walkforward import Plan, WalkForwardResult
    from autoscaler.simulator.search.worlds import WorldResult

FINALISTS = 20
"""Number of candidates tried in the other worlds besides the current policy: the cheapest that keep the limits."""


@with_played
def recommend(
    policy: POLICY,
    trace: TRACE,
    vary: VARY = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option(
            "--at-most",
            help="Upper limit for candidates: unserved=0.1%, longest_episode=5m; repeatable "
            "(default: no more unserved than now, unless a limit says how much shortage is allowed).",
            metavar="FIGURE=VALUE",
        ),
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", help="Lower limit for candidates: warm_hits=99%.", metavar="FIGURE=VALUE"),
    ] = None,
    random: RANDOM = None,
    folds: Annotated[
        int, typer.Option(min=2, max=52, help="Number of choices to judge, if the trace is long enough.")
    ] = 4,
    unserved_price: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Money per unit of unserved work, for the regret over worlds (default: 10 times the cost of serving it).",
            metavar="MONEY",
        ),
    ] = None,
    no_worlds: Annotated[bool, typer.Option("--no-worlds", help="Skip the other worlds.")] = False,
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
    """Say what to change in a policy, or that nothing tried is better, or that a difference may be luck."""
    with errors_in_words("recommend"):
        from autoscaler.simulator.search.limits import limits_of
        from autoscaler.simulator.search.worlds import worlds_of

        limits = limits_of(at_most or (), at_least or ())
        executor = executor_for(processes, scheduler)
        if out is not None:
            make_place(out, force=force, with_page=not no_page)
        tried = tried_on(policy, trace, played.kind, played.wanted(seed), vary, random)
        _refuse_given(tried)
        found = _found(tried, limits, folds, executor, processes, quiet=as_json)
        weathered = (
            ()
            if no_worlds or found.walked.interrupted
            else _weather(found, limits, executor, unserved_price, quiet=as_json)
        )
        document = _document(found, limits, weathered)
        if out is not None:
            from autoscaler.simulator.report.folder import write_run
            from autoscaler.simulator.search.landscape import write_results

            make_way(out, force=force)
            write_results(out, found.judged, form, {"why_not": found.advice.reasons})
            write_run(out, document, None, {}, with_page=not no_page)
        _tell(found, document, weathered, out, as_json=as_json, with_page=not no_page)
        if found.walked.interrupted:
            typer.echo("interrupted: the advice rests on the variants that had finished", err=True)
            raise typer.Exit(INTERRUPTED)
        if found.walked.unfinished:
            for lost in found.walked.unfinished:
                typer.echo(f"recommend: {lost}", err=True)
            raise typer.Exit(FAILED)
        if not no_worlds and len(weathered) < len(worlds_of(found.course)):
            typer.echo(
                "interrupted: the advice is complete, but some of the other worlds are missing", err=True
            )
            raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Found:
    """The results up to the advice.

    Attributes:
        tried: The policy's variants and the replay they run on.
        course: The traffic and ticks to score.
        plan: The folds of the walk-forward validation.
        walked: The variants' results, whole and per fold.
        advice: The recommendation.
        judged: The results as a landscape of parameters and figures.
        forecasts: Outlooks to reuse in the other worlds.
    """

    tried: Tried
    course: SweepCourse
    plan: Plan
    walked: WalkForwardResult
    advice: Advice
    judged: Landscape
    forecasts: OutlookCache


def _refuse_given(tried: Tried) -> None:
    from autoscaler.errors import ConfigError
    from autoscaler.simulator.search.variants import is_given

    wrong = [path for path in tried.current if is_given(path)]
    if wrong:
        raise ConfigError(
            f"`{wrong[0]}` describes the fleet rather than a choice of yours, so it cannot be recommended; see what it costs with `autoscaler sweep`"
        )


def _found(
    tried: Tried,
    limits: Sequence[Limit],
    folds: int,
    executor: Executor | None,
    processes: int,
    *,
    quiet: bool,
) -> _Found:
    from autoscaler.cli.progress import Bar
    from autoscaler.errors import ConfigError
    from autoscaler.simulator.lanes.outlooks import OutlookCache
    from autoscaler.simulator.search.landscape import landscape_of
    from autoscaler.simulator.search.recommending import advise
    from autoscaler.simulator.search.sweep import SweepCourse
    from autoscaler.simulator.search.walkforward import embargo_ticks, plan_folds, walk

    replay = tried.replay
    course = SweepCourse(replay.trace, replay.grid, replay.seed, replay.warm_up_ticks)
    if course.warm_up_ticks >= replay.ticks:
        raise ConfigError("nothing is left to score after the warm-up; take a longer part")
    embargo = embargo_ticks(tried.variants, replay.trace.interval_s, replay.tick_s)
    plan, cache = plan_folds(course, embargo, folds), OutlookCache()
    with Bar(f"{len(tried.variants)} variants on {replay.trace.name}", quiet=quiet) as bar:
        walked = walk(
            tried.variants,
            course,
            plan,
            executor=executor,
            part_variants=max(1, -(-len(tried.variants) // processes)) if processes > 1 else 1000,
            cache=cache,
            progress=bar,
        )
    if 0 not in walked.numbers:
        raise ConfigError("; ".join(map(str, walked.unfinished)) + ". The policy as it is was among them.")
    advice = advise(walked, plan, limits, tick_s=replay.tick_s, seed=replay.seed)
    judged = landscape_of(walked.variants, walked.numbers, walked.whole, walked.digests, tried.current)
    found = _Found(tried, course, plan, walked, advice, judged, cache)
    return replace(found, advice=replace(advice, sentences=(*advice.sentences, *_beyond(found))))


def _weather(
    found: _Found,
    limits: Sequence[Limit],
    executor: Executor | None,
    price: float | None,
    *,
    quiet: bool,
) -> tuple[WorldResult, ...]:
    """Return the results in every world of the current policy, the recommended variant and the cheapest others, in this order."""
    from autoscaler.cli.progress import Bar
    from autoscaler.simulator.search.worlds import price_of_unserved, weather

    paid = price_of_unserved(found.tried.base.policy) if price is None else price
    candidates = [found.walked.variants[row] for row in _finalists(found, limits)]
    with Bar(f"{len(candidates)} variants in other worlds", quiet=quiet) as bar:
        return weather(candidates, found.course, paid, executor=executor, cache=found.forecasts, progress=bar)


def _finalists(found: _Found, limits: Sequence[Limit]) -> list[int]:
    import numpy as np

    from autoscaler.simulator.search.limits import kept

    whole, advice = found.walked.whole, found.advice
    fit = np.flatnonzero(kept(limits, whole, advice.current))
    cheapest = fit[np.argsort(whole["cost"][fit], kind="stable")].tolist()
    return list(dict.fromkeys([advice.current, advice.row, *cheapest]))[: FINALISTS + 1]


def _document(found: _Found, limits: Sequence[Limit], weathered: Sequence[WorldResult]) -> dict[str, Any]:
    from autoscaler.simulator.search.landscape import document_of

    advice, tried = found.advice, found.tried
    missing = [str(each) for each in found.walked.unfinished]
    document = document_of(
        tried.replay,
        found.judged,
        beside=None if advice.row == advice.current else advice.row,
        cautions=missing,
        partial=bool(missing),
    )
    sentences = [*_in_words(_changes(found)), *advice.sentences, *_of_worlds(found, limits, weathered)]
    document["conclusion"] = {"headline": advice.headline, "sentences": sentences}
    document["recommendation"] = {
        "verdict": str(advice.verdict),
        "headline": advice.headline,
        "sentences": sentences,
        "limits": [str(limit) for limit in limits],
        "variant": int(found.judged.numbers[advice.row]),
        "changes": _changes(found),
        "tried": advice.tried,
        "decay": advice.decay,
        "rank_stability": advice.rank_stability,
        "cost_per_day": None if advice.cost_per_day is None else asdict(advice.cost_per_day),
        "own_cost_per_day": None if advice.own_cost_per_day is None else asdict(advice.own_cost_per_day),
        "unserved_share": None if advice.unserved is None else asdict(advice.unserved),
        "folds": [{**asdict(fold), "variant": int(found.judged.numbers[fold.row])} for fold in advice.folds],
        "folded": found.plan.why,
        "embargo_s": found.plan.embargo * tried.replay.tick_s,
        "not_taken": [
            {"variant": int(number), "why": why}
            for number, why in zip(found.judged.numbers, advice.reasons, strict=True)
            if why
        ],
        "worlds": [
            {
                "world": each.world,
                "what": each.what,
                "cost": each.cost.tolist(),
                "unserved_share": each.unserved.tolist(),
                "regret": each.regret.tolist(),
                "unserved_price": each.price,
            }
            for each in weathered
        ],
        "finalists": [int(found.judged.numbers[row]) for row in _finalists(found, limits)]
        if weathered
        else [],
    }
    return document


def _changes(found: _Found) -> dict[str, Any]:
    """Return the recommended changes by field: old and new value, and the effect of this change alone if that was tried."""
    from autoscaler.simulator.search.landscape import COST, UNSERVED

    judged, now, then = found.judged, found.advice.current, found.advice.row
    changes = {}
    for path, column in judged.parameters.items():
        if column[now] == column[then]:
            continue
        alone = judged.alone(path, then)
        cost, unserved = judged.figures[COST], judged.figures[UNSERVED]
        known = alone is not None and cost[now] > 0
        changes[path] = {
            "now": column[now],
            "then": column[then],
            "cost_alone": float(cost[alone] / cost[now] - 1.0) if known else None,
            "unserved_alone": None if alone is None else float(unserved[alone] - unserved[now]),
        }
    return changes


def _beyond(found: _Found) -> list[str]:
    """Return a sentence for each recommended value at the edge of the tried range, where better values may lie beyond."""
    from autoscaler.simulator.search.nearby import at_edge
    from autoscaler.simulator.search.recommending import WORTH

    return [
        f"{path} {change['then']} is the {edge} value that was tried; values beyond it may cost even less: give them with --vary."
        for path, change in _changes(found).items()
        if abs(change["cost_alone"] or 0.0) >= WORTH
        and (edge := at_edge(found.judged.parameters[path], change["then"]))
    ]


def _in_words(changes: dict[str, Any]) -> list[str]:
    told = [f"{path} from {change['now']} to {change['then']}" for path, change in changes.items()]
    return [f"That is {', '.join(told)}."] if told else []


def _of_worlds(found: _Found, limits: Sequence[Limit], weathered: Sequence[WorldResult]) -> list[str]:
    """Return sentences on where the recommended variant regrets more than the current policy, and which variant regrets least at worst."""
    import numpy as np

    from autoscaler.simulator.report.wording import each_unit, money

    if not weathered:
        return []
    worst = np.max([each.regret for each in weathered], axis=0)
    told = [
        f"Over {len(weathered)} worlds the worst regret of the policy as it is is {money(float(worst[0]))}"
    ]
    if found.advice.row != found.advice.current:
        told[0] += f", that of what looks best {money(float(worst[1]))}"
        worse = [each.world for each in weathered if each.regret[1] > each.regret[0]]
        if worse:
            told[0] += f", which regrets more in: {', '.join(worse)}"
    least = int(np.argmin(worst))
    row = _finalists(found, limits)[least]
    if row not in {found.advice.row, found.advice.current}:
        number, named = int(found.judged.numbers[row]), found.judged.named(row)
        told.append(f"Variant {number} regrets least at worst, {money(float(worst[least]))}: {named}")
    told.append(
        f"Regret is money: what a variant costs, unserved work at {each_unit(weathered[0].price)} included (--unserved-price, of one unit), "
        "more than the best of these variants in the same world"
    )
    return [f"{each}." for each in told]


def _tell(
    found: _Found,
    document: dict[str, Any],
    weathered: Sequence[WorldResult],
    out: Path | None,
    *,
    as_json: bool,
    with_page: bool,
) -> None:
    if as_json:
        print_json(document)
        return
    from autoscaler.cli.sweep_screen import print_advice

    print_advice(document, found.judged, found.advice, weathered)
    if out is not None:
        typer.echo(f"Read {out / ('report.html' if with_page else 'report.json')}")
