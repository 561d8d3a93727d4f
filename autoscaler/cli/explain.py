"""`explain`: why a fleet has its size, from the journal.

Exit codes: 0 explained, 1 no journal or an unknown fleet, 2 wrong usage.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import JSON, STATE_DIR
from autoscaler.cli.output import (
    errors_in_words,
    forecast_words,
    moment,
    moment_or_ago,
    print_line,
    since_epoch,
    unknown_word,
    utc,
    work,
)
from autoscaler.words import counted

if TYPE_CHECKING:
    from autoscaler.ports import ActionRecord, Earnings, FleetTick
    from autoscaler.store.reader import JournalReader, TickRow

_SHOWN_OUTCOMES = 12
_LONGEST_TICK_S = 300.0


def explain(
    fleet: Annotated[
        str | None,
        typer.Argument(
            help="Name of the fleet; optional with --since, which then prints a line per fleet.",
            show_default=False,
        ),
    ] = None,
    at_s: Annotated[
        float | None,
        typer.Option(
            "--at",
            parser=moment,
            help="Time of the decision to explain (default: the latest).",
            metavar="TIME",
        ),
    ] = None,
    since_s: Annotated[
        float | None,
        typer.Option(
            "--since",
            parser=moment_or_ago,
            help="List orders, shortages and troubles from this time on instead: 2h (ago) or a time.",
            metavar="TIME",
        ),
    ] = None,
    until_s: Annotated[
        float | None,
        typer.Option(
            "--until", parser=moment_or_ago, help="With --since: end, in the same form.", metavar="TIME"
        ),
    ] = None,
    state_dir: STATE_DIR = None,
    as_json: JSON = False,
) -> None:
    """Explain a fleet's size by inputs, stages and outcomes, or list what happened to it --since a time."""
    from autoscaler.errors import JournalError
    from autoscaler.settings import load_settings
    from autoscaler.store import JournalReader
    from autoscaler.store.schema import FILE_NAME

    if (at_s is not None and since_s is not None) or (until_s is not None and since_s is None):
        raise typer.BadParameter(
            "pass --at for one decision, or --since (with --until) for what happened over a time",
            param_hint="--since",
        )
    if fleet is None and since_s is None:
        raise typer.BadParameter("name one, or pass --since for one line per fleet", param_hint="FLEET")
    one = fleet or ""
    with errors_in_words("explain"):
        directory = load_settings(state_dir=state_dir).state_dir
        if state_dir is not None and since_s is None and not (directory / FILE_NAME).exists():
            from autoscaler.cli.explain_replayed import explain_replayed

            if explain_replayed(directory, one, at_s, as_json=as_json):
                return
        with JournalReader(directory) as reader:
            if since_s is not None:
                _tell_since(reader, fleet, since_s, until_s, directory, as_json=as_json)
                return
            row = reader.last(one) if at_s is None else reader.tick_at(one, at_s)
            if row is None:
                raise JournalError(_nothing(reader, one, at_s, directory))
            # An early turn belongs to the same tick but has its own actions.
            end_s = row.at_s + _LONGEST_TICK_S
            later = (t.at_s for t in reader.each_tick(one, row.at_s, end_s) if t.at_s > row.at_s)
            until_s = next(later, end_s)
            actions = [
                a
                for a in reader.actions_of_tick(row.tick)
                if a.intent.fleet == one and row.at_s <= a.at_s < until_s
            ]
        if as_json:
            typer.echo(json.dumps(_explained(row, actions), indent=2))
        else:
            _tell(row, actions)


def _tell_since(
    reader: JournalReader,
    fleet: str | None,
    since_s: float,
    until_s: float | None,
    directory: Path,
    *,
    as_json: bool,
) -> None:
    from autoscaler.cli.explain_since import tell_all_since, tell_since
    from autoscaler.clock import SystemClock
    from autoscaler.errors import JournalError

    now_s = SystemClock().now()
    begin_s, end_s = since_epoch(since_s, now_s, now_s), since_epoch(until_s, now_s, now_s + _LONGEST_TICK_S)
    if fleet is None:
        if not tell_all_since(reader, begin_s, end_s, as_json=as_json):
            raise JournalError(
                f"the journal in {directory} has no decision from {utc(begin_s)} to {utc(end_s)}"
            )
        return
    if not tell_since(reader, fleet, begin_s, end_s, as_json=as_json):
        covered = reader.span(fleet)
        if covered is None:
            raise JournalError(_nothing(reader, fleet, None, directory))
        raise JournalError(
            f"the journal in {directory} has no decision for {fleet} from {utc(begin_s)} to {utc(end_s)}; it covers "
            f"{utc(covered[0])} to {utc(covered[1])}"
        )


def _nothing(reader: JournalReader, fleet: str, at_s: float | None, directory: Path) -> str:
    known = reader.fleets_ever()
    if fleet in known and at_s is not None:
        covered = reader.span(fleet)
        first = f"; its first is of {utc(covered[0])}" if covered else ""
        return f"the journal in {directory} has no decision for {fleet} at or before {utc(at_s)}{first}"
    return unknown_word(fleet, known, "fleet", f"the journal in {directory}")


def _explained(row: TickRow, actions: list[ActionRecord]) -> dict[str, Any]:
    from autoscaler.web.status import row_json

    return {
        "version": FORM,
        "fleet": row.recorded.fleet,
        "provider": row.recorded.provider,
        "tick": row.tick,
        "at": utc(row.at_s),
        "at_s": row.at_s,
        "decision": row_json(row.recorded),
        "actions": [
            {
                "id": a.id,
                "verb": str(a.intent.verb),
                "vms": list(a.intent.vm_ids),
                "count": a.intent.count,
                "settled_at_s": a.settled_at_s,
                "outcomes": [
                    {"vm": o.vm_id, "outcome": str(o.kind), "code": o.code, "message": o.message}
                    for o in a.outcomes
                ],
            }
            for a in actions
        ],
    }


def _tell(row: TickRow, actions: list[ActionRecord]) -> None:
    from autoscaler.core.types import Freshness, Reason, Stage
    from autoscaler.daemon.decision_sentences import phrase, waiting

    r = row.recorded
    where = f" in {r.provider}" if r.provider else ""
    print_line(f"{r.fleet}{where} at {utc(row.at_s)} (tick {row.tick})")
    print_line(f"  {r.sentence}")
    print_line("inputs")
    age = "" if math.isnan(r.observed_at_s) else f", read {row.at_s - r.observed_at_s:.0f} s before"
    censored = ", hidden by saturation" if r.censored else ""
    freshness = Freshness(r.freshness).name.lower()
    print_line(
        f"  demand    {work(r.demand)}/s ({freshness}{age}, {r.coverage:.0%} of VMs reporting{censored})"
    )
    if r.source_error:
        print_line(f"  metrics   {r.source_error}")
    print_line(f"  forecast  {forecast_words(r.forecast, r.forecast_hi, work)}")
    print_line(
        f"  VMs       {r.in_service} in service, {r.starting} starting, {r.stopping} stopping, "
        f"{r.stopped} stopped (wanted {r.warm_target}), {r.stoppable} could be stopped"
    )
    if r.earnings is not None:
        print_line(f"  model     {_driving(r.earnings)}")
    if r.memories is not None:
        print_line(f"  waiting   {waiting(r.memories)}")
    if held := _held(r):
        print_line(f"  operators {held}")
    print_line("stages")
    for stage in Stage:
        if stage < len(r.stages):
            reason = Reason(r.reasons[stage])
            why = (
                ""
                if reason is Reason.NONE
                else f"{reason.name.lower()}: {phrase(reason, r.stages[stage], r)}"
            )
            print_line(f"  {stage.name.lower():<14}{r.stages[stage]:>5}  {why}")
    print_line("done" if actions else "done: nothing")
    for action in actions:
        _tell_action(action)


def _driving(earnings: Earnings) -> str:
    """Return which model drives, what it wants, and at what price of unserved work."""
    return (
        f"{earnings.model}; starts up to {counted(earnings.up_to, 'VM')}, keeps up to {earnings.down_to}; "
        f"unserved work costs {earnings.shortage_price:,.4g} times what a VM in service does"
    )


def _held(row: FleetTick) -> str:
    """Return the operators' pauses and bounds that were in force; empty if there were none."""
    from autoscaler.core.types import NO_CEILING

    paused = {"starts": row.may_start, "provisioning": row.may_provision, "stops": row.may_stop}
    told = [f"{name} paused" for name, allowed in paused.items() if not allowed]
    if row.floor:
        told.append(f"floor {row.floor}")
    if row.ceiling != NO_CEILING:
        told.append(f"ceiling {row.ceiling}")
    return ", ".join(told)


def _tell_action(action: ActionRecord) -> None:
    from collections import Counter

    counts = Counter(str(o.kind) for o in action.outcomes)
    told = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no outcome yet"
    print_line(f"  {action.intent.verb} {action.intent.count}: {told}")
    failed = [o for o in action.outcomes if o.code]
    for outcome in failed[:_SHOWN_OUTCOMES]:
        print_line(f"    {outcome.vm_id}: {outcome.kind} {outcome.code} {outcome.message}".rstrip())
    if len(failed) > _SHOWN_OUTCOMES:
        typer.echo(f"    and {len(failed) - _SHOWN_OUTCOMES} more")
