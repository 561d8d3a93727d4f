"""`events`: events from the journal, for people and programs.

Exit codes: 0 shown (also if there is nothing to show), 1 no journal or an unknown fleet or kind, 2 wrong usage,
130 interrupted (the usual end of `--follow`).

Rules of this file: the journal is opened read-only for one short read at a time. So `--follow` continues while the
daemon writes, when it restarts, and when it sets a damaged journal aside.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.options import STATE_DIR, UNTIL
from autoscaler.cli.output import errors_in_words, moment_or_ago, print_line, since_epoch, unknown_word, utc

if TYPE_CHECKING:
    from autoscaler.store import EventFilter, EventRecord, JournalReader

SHOWN = 100
POLL_S = 1.0
"""Seconds between two reads with `--follow`."""
_MOST_AT_ONCE = 1000


def events(
    fleet: Annotated[
        str | None, typer.Option(help="Only events of this fleet (default: all).", metavar="FLEET")
    ] = None,
    since_s: Annotated[
        float | None,
        typer.Option("--since", parser=moment_or_ago, help="Start: 2h (ago) or a time.", metavar="TIME"),
    ] = None,
    until_s: UNTIL = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only events of this kind; repeatable.", metavar="KIND"),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Show at most this many, the newest.")
    ] = SHOWN,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep showing new events until Ctrl-C.")
    ] = False,
    state_dir: STATE_DIR = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per line.")] = False,
) -> None:
    """Show what happened apart from decisions: failed VMs, reloads, operators' changes; newest last."""
    from autoscaler.clock import SystemClock
    from autoscaler.settings import load_settings
    from autoscaler.store import EventFilter, JournalReader

    if follow and until_s is not None:
        raise typer.BadParameter(
            "--follow shows events after any --until; leave out one of the two", param_hint="--follow"
        )
    with errors_in_words("events"):
        directory = load_settings(state_dir=state_dir).state_dir
        now_s = SystemClock().now()
        wanted = EventFilter(
            since_epoch(since_s, now_s, float("-inf")),
            since_epoch(until_s, now_s, float("inf")),
            fleet,
            tuple(kind or ()),
        )
        with JournalReader(directory) as reader:
            _check_words(reader, wanted, directory)
            found, left_out = reader.newest_events(wanted, limit)
            last = reader.last_event()
        if left_out:
            text = f"{left_out:,} earlier ones are left out; a larger --limit shows more"
            typer.echo(f"events: {text}", err=True)
        for event in found:
            _show(event, as_json)
        if not found and not follow:
            typer.echo(f"events: {_nothing(last, directory)}", err=True)
        if follow:
            import asyncio

            asyncio.run(_follow(directory, wanted, last.id if last else 0, as_json))


def _check_words(reader: JournalReader, wanted: EventFilter, directory: Path) -> None:
    """Raise an error for an unknown fleet or kind, so that a misspelt name is not taken for one without events.

    Raises:
        JournalError: The journal does not know the fleet or the kind.
    """
    from autoscaler.cli.reference_journal import KINDS
    from autoscaler.daemon.telemetry import EVENTS
    from autoscaler.errors import JournalError

    kinds, fleets = reader.event_words()
    known = fleets.union(reader.fleets_ever())
    where = f"the journal in {directory}"
    if wanted.fleet is not None and wanted.fleet not in known:
        raise JournalError(unknown_word(wanted.fleet, known, "fleet", where))
    for kind in wanted.kinds:
        if kind not in kinds and kind not in KINDS and kind not in EVENTS:
            raise JournalError(unknown_word(kind, kinds.union(KINDS, EVENTS), "kind of event", where))


def _nothing(last: EventRecord | None, directory: Path) -> str:
    if last is None:
        return f"the journal in {directory} has no event yet"
    return f"none of these in the journal in {directory}; its last event is of {utc(last.at_s)} ({last.kind})"


async def _follow(directory: Path, wanted: EventFilter, after: int, as_json: bool) -> None:
    """Print new events until interrupted; report an unreadable journal once and keep trying."""
    from autoscaler.clock import SystemClock
    from autoscaler.errors import JournalError
    from autoscaler.store import JournalReader

    clock, trouble = SystemClock(), ""
    while True:
        await clock.sleep_until(clock.monotonic() + POLL_S)
        try:
            with JournalReader(directory) as reader:
                last = reader.last_event()
                if last is None or last.id < after:
                    after = 0  # a new journal, begun after damage
                found = reader.events_after(after, wanted, _MOST_AT_ONCE)
        except JournalError as error:
            if str(error) != trouble:
                typer.echo(f"events: {error}", err=True)
            trouble = str(error)
            continue
        trouble = ""
        for event in found:
            _show(event, as_json)
        newest = max(last.id if last else 0, found[-1].id if found else 0)
        after = found[-1].id if len(found) == _MOST_AT_ONCE else newest


def _show(event: EventRecord, as_json: bool) -> None:
    if as_json:
        line = {
            "id": event.id,
            "at": utc(event.at_s),
            "at_s": event.at_s,
            "fleet": event.fleet,
            "kind": event.kind,
        }
        typer.echo(json.dumps({**line, "text": event.text}, ensure_ascii=False))
    else:
        text = " ".join(event.text.split())
        print_line(f"{utc(event.at_s)}  {event.fleet or '-':<12}  {event.kind:<20}  {text}")
