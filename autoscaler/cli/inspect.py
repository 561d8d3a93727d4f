"""`status` and `explain`: what a daemon does now, and why it did what it did.

Exit codes: 0 all is well, 1 no daemon, no journal, an unknown fleet, or an unhealthy daemon, 2 wrong usage.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.output import FAILED, errors_in_words, moment

if TYPE_CHECKING:
    from autoscaler.ports import ActionRecord
    from autoscaler.store.reader import JournalReader, TickRow

JSON_OPTION = typer.Option("--json", help="Print JSON for programs.")
_SHOWN_OUTCOMES = 12


def status(
    url: Annotated[
        str | None, typer.Option(help="Address of the daemon (default: from the settings).", metavar="URL")
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what the daemon sees, wants and does now, per fleet."""
    from autoscaler.settings import load_settings

    with errors_in_words("status"):
        settings = load_settings()
        base = url or _own_address(settings.http_host, settings.http_port)
        found = _fetch(base)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    if not found["healthy"]:
        raise typer.Exit(FAILED)


def _own_address(host: str, port: int) -> str:
    """Where a daemon of these settings is reached from this machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  all addresses: any will do
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _fetch(base: str) -> dict[str, Any]:
    import http.client
    import urllib.error
    import urllib.request

    from autoscaler.errors import DaemonError

    if not base.startswith(("http://", "https://")):
        msg = f"{base} is not an address; write for example http://127.0.0.1:9412"
        raise DaemonError(msg)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base.rstrip('/')}/api/v1/status", timeout=5.0) as answer:
            found: Any = json.load(answer)
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError):
        found = None
    except OSError as error:
        why = getattr(error, "reason", error)
        told = getattr(why, "strerror", None) or why
        msg = f"no daemon answers at {base} ({told}); start it with `autoscaler run`, or give its --url"
        raise DaemonError(msg) from None
    if not isinstance(found, dict) or not {"healthy", "problems", "fleets"} <= found.keys():
        msg = f"what answers at {base} is not an autoscaler of this version; give the --url of yours"
        raise DaemonError(msg)
    return found


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{_time(found['at_s'])}, tick {found['tick']}", highlight=False)
    table = Table("fleet", "acts", box=None, pad_edge=False)
    for name in ("demand/s", "95 %/s", "desired", "serve", "start", "warm", "short/s", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for fleet in found["fleets"]:
        d = fleet["decision"] or {}
        table.add_row(
            fleet["fleet"],
            "yes" if fleet["act"] else "shadow",
            _work(d.get("demand")),
            _work(d.get("forecast_hi")),
            str(d.get("desired", "?")),
            str(d.get("in_service", "?")),
            str(d.get("starting", "?")),
            f"{d.get('stopped', '?')} of {d.get('warm_target', '?')}",
            _work(d.get("shortage")),
            f"{fleet['cost_total']:,.2f}",
        )
    console.print(table)
    say = partial(console.print, highlight=False, soft_wrap=True)
    for fleet in found["fleets"]:
        if fleet["decision"]:
            say(f"{fleet['fleet']}: {fleet['decision']['sentence']}")
        for what, error in (("metrics", fleet["source_error"]), ("list of VMs", fleet["listing_error"])):
            if error:
                say(f"{fleet['fleet']}: {what}: {error}", style="yellow")
    for problem in found["problems"]:
        say(f"unhealthy: {problem}", style="red")


def explain(
    fleet: Annotated[str, typer.Argument(help="Which fleet.")],
    at_s: Annotated[
        float | None,
        typer.Option(
            "--at", parser=moment, help="The decision in force then (default: the last).", metavar="TIME"
        ),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the journal is (setting state_dir).", metavar="DIR")
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say why a fleet has the size it has: inputs, every stage's number, what was done and what came back."""
    from autoscaler.errors import JournalError
    from autoscaler.settings import load_settings
    from autoscaler.store import JournalReader

    with errors_in_words("explain"):
        directory = load_settings(state_dir=state_dir).state_dir
        with JournalReader(directory) as reader:
            row = reader.last(fleet) if at_s is None else reader.tick_at(fleet, at_s)
            if row is None:
                raise JournalError(_nothing(reader, fleet, at_s, directory))
            actions = [a for a in reader.actions_of_tick(row.tick) if a.intent.fleet == fleet]
        if as_json:
            typer.echo(json.dumps(_explained(row, actions), indent=2))
        else:
            _tell(row, actions)


def _nothing(reader: JournalReader, fleet: str, at_s: float | None, directory: Path) -> str:
    import difflib

    known = reader.fleets()
    if fleet in known and at_s is not None:
        return f"the journal in {directory} has no decision for {fleet} at or before {_time(at_s)}"
    near = difflib.get_close_matches(fleet, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known) or 'none yet'}"
    return f"the journal in {directory} has no fleet {fleet}; {hint}"


def _explained(row: TickRow, actions: list[ActionRecord]) -> dict[str, Any]:
    from autoscaler.web.status import row_json

    return {
        "fleet": row.recorded.fleet,
        "tick": row.tick,
        "at": _time(row.at_s),
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
    from autoscaler.daemon.sentences import phrase

    r = row.recorded
    say = typer.echo
    say(f"{r.fleet} at {_time(row.at_s)} (tick {row.tick})")
    say(f"  {r.sentence}")
    say("inputs")
    age = "" if math.isnan(r.observed_at_s) else f", read {row.at_s - r.observed_at_s:.0f} s before"
    censored = ", hidden by saturation" if r.censored else ""
    freshness = Freshness(r.freshness).name.lower()
    say(f"  demand    {_work(r.demand)}/s ({freshness}{age}, {r.coverage:.0%} of VMs reporting{censored})")
    say(
        f"  forecast  {_work(r.forecast)}/s at the lead time; 95 % of outcomes below {_work(r.forecast_hi)}/s"
    )
    say(
        f"  VMs       {r.in_service} in service, {r.starting} starting, {r.stopping} stopping, "
        f"{r.stopped} stopped (wanted {r.warm_target}), {r.stoppable} could be stopped"
    )
    say("stages")
    for stage in Stage:
        if stage < len(r.stages):
            reason = Reason(r.reasons[stage])
            why = (
                ""
                if reason is Reason.NONE
                else f"{reason.name.lower()}: {phrase(reason, r.stages[stage], r)}"
            )
            say(f"  {stage.name.lower():<14}{r.stages[stage]:>5}  {why}")
    say("done" if actions else "done: nothing")
    for action in actions:
        _tell_action(action)


def _tell_action(action: ActionRecord) -> None:
    from collections import Counter

    counts = Counter(str(o.kind) for o in action.outcomes)
    told = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no outcome yet"
    typer.echo(f"  {action.intent.verb} {action.intent.count}: {told}")
    failed = [o for o in action.outcomes if o.code]
    for outcome in failed[:_SHOWN_OUTCOMES]:
        typer.echo(f"    {outcome.vm_id}: {outcome.kind} {outcome.code} {outcome.message}".rstrip())
    if len(failed) > _SHOWN_OUTCOMES:
        typer.echo(f"    and {len(failed) - _SHOWN_OUTCOMES} more")


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _work(value: float | None) -> str:
    return "?" if value is None or math.isnan(value) else f"{value:,.0f}"
