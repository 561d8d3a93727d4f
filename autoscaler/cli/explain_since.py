"""`explain --since`: a fleet's orders, shortages, failed metrics, refused calls and events over a period, in order.

Rules of this file: a line is printed only where something changed. Sentences are taken from the journal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.output import print_json, print_line, utc, work
from autoscaler.core.types import Freshness
from autoscaler.ports import OutcomeKind, Verb
from autoscaler.simulator.replay.recording import accepted
from autoscaler.simulator.report.wording import plural, span

if TYPE_CHECKING:
    from autoscaler.ports import ActionRecord, FleetTick
    from autoscaler.store import EventRecord
    from autoscaler.store.reader import JournalReader, TickRow

MOST_LINES = 100
"""At most this many lines are shown, the newest; the others are counted."""
_SILENT_S = 300.0
"""The longest possible tick, seconds. A longer gap between decisions means that no daemon was deciding."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened.

    Attributes:
        at_s: Epoch seconds.
        what: Its kind, a word for programs.
        text: Its description for people.
    """

    at_s: float
    what: str
    text: str


@dataclass(slots=True)
class Story:
    """What happened to one fleet, gathered decision by decision.

    Attributes:
        lines: The events, ordered by time.
        decisions: Number of decisions.
        started, made, stopped: VMs for which the provider accepted a start, provision or stop. Upkeep of the warm pool is not counted.
        refused, unknown: Calls that failed for some or all VMs; calls without an answer, whose result later listings showed.
        least, most: Smallest and largest number of VMs in service.
        short_s, longest_s: Total time with shortage, and the longest episode, seconds.
        episodes: Number of times a shortage began.
        worst: Largest shortage, work per second.
    """

    lines: list[Line] = field(default_factory=list)
    decisions: int = 0
    started: int = 0
    made: int = 0
    stopped: int = 0
    refused: int = 0
    unknown: int = 0
    least: int = 0
    most: int = 0
    short_s: float = 0.0
    longest_s: float = 0.0
    episodes: int = 0
    worst: float = 0.0
    _last: TickRow | None = None
    _short_since_s: float = math.nan
    _peak: float = 0.0
    _wanted: str = ""
    _blind_since_s: float = math.nan

    def take(self, row: TickRow) -> None:
        """Add the next decision."""
        seen, last = row.recorded, self._last
        if last is not None and row.at_s - last.at_s > _SILENT_S:
            self._say(row.at_s, "silence", f"nothing was decided for {span(row.at_s - last.at_s)} before")
        self._take_shortage(row)
        self._take_metrics(row)
        wanted = seen.sentence if seen.start or seen.provision or seen.stop else ""
        # A repeated order means that the first was not carried out, for example while another daemon holds the fleet.
        if wanted and wanted != self._wanted:
            self._say(row.at_s, "ordered", wanted)
        self._wanted = wanted
        self.least = seen.in_service if last is None else min(self.least, seen.in_service)
        self.most = max(self.most, seen.in_service)
        self.decisions += 1
        self._last = row

    def end(self) -> None:
        """Close a shortage that is still open after the last decision."""
        if self._last is not None and not math.isnan(self._short_since_s):
            self._close_shortage(self._last.at_s)

    def _take_shortage(self, row: TickRow) -> None:
        seen = row.recorded
        if math.isnan(seen.shortage):
            return
        if seen.shortage <= 0:
            if not math.isnan(self._short_since_s):
                lasted, peak = row.at_s - self._short_since_s, self._peak
                self._close_shortage(row.at_s)
                self._say(
                    row.at_s, "served", f"enough again after {span(lasted)}, short of {work(peak)}/s at worst"
                )
            return
        if math.isnan(self._short_since_s):
            self._short_since_s, self._peak = row.at_s, 0.0
            self.episodes += 1
            self._say(row.at_s, "short", f"short of {work(seen.shortage)}/s: {_has(seen)}")
        self._peak = max(self._peak, seen.shortage)
        self.worst = max(self.worst, seen.shortage)

    def _close_shortage(self, at_s: float) -> None:
        lasted = at_s - self._short_since_s
        self.short_s += lasted
        self.longest_s = max(self.longest_s, lasted)
        self._short_since_s = math.nan

    def _take_metrics(self, row: TickRow) -> None:
        seen = row.recorded
        if seen.freshness == Freshness.FRESH:
            if not math.isnan(self._blind_since_s):
                self._say(
                    row.at_s,
                    "metrics",
                    f"metrics are fresh again after {span(row.at_s - self._blind_since_s)}",
                )
            self._blind_since_s = math.nan
        elif math.isnan(self._blind_since_s):
            self._blind_since_s = row.at_s
            why = f": {seen.source_error}" if seen.source_error else ""
            self._say(row.at_s, "metrics", f"metrics are {Freshness(seen.freshness).name.lower()}{why}")

    def _say(self, at_s: float, what: str, text: str) -> None:
        self.lines.append(Line(at_s, what, " ".join(text.split())))


def tell_all_since(reader: JournalReader, begin_s: float, end_s: float, *, as_json: bool) -> bool:
    """Print one line per fleet, the longest shortage first; return False if there was no decision in that time."""
    found = [(fleet, _story(reader, fleet, begin_s, end_s)) for fleet in reader.fleets_ever()]
    told = sorted((each for each in found if each[1].decisions), key=lambda each: -each[1].short_s)
    if as_json and told:
        fleets = [_document(story, fleet, begin_s, end_s) for fleet, story in told]
        print_json({"version": FORM, "from_s": begin_s, "to_s": end_s, "fleets": fleets})
    elif told:
        for fleet, story in told:
            typer.echo(_summary(story, fleet))
        typer.echo("`autoscaler explain FLEET --since …` tells what happened in one of them, line by line.")
    return bool(told)


def tell_since(reader: JournalReader, fleet: str, begin_s: float, end_s: float, *, as_json: bool) -> bool:
    """Print what happened to a fleet, line by line; return False if there was no decision in that time."""
    story = _story(reader, fleet, begin_s, end_s)
    if not story.decisions:
        return False
    if as_json:
        print_json(_document(story, fleet, begin_s, end_s))
        return True
    left_out = len(story.lines) - MOST_LINES
    if left_out > 0:
        typer.echo(
            f"{plural(left_out, 'earlier line is', 'earlier lines are')} left out; --json has all", err=True
        )
    for line in story.lines[-MOST_LINES:]:
        print_line(f"{utc(line.at_s)}  {line.text}")
    if not story.lines:
        typer.echo("Nothing was ordered, and nothing else happened.")
    typer.echo(_summary(story, fleet))
    return True


def _story(reader: JournalReader, fleet: str, begin_s: float, end_s: float) -> Story:
    """Return everything that the journal says about a fleet in a period."""
    story = Story()
    for row in reader.each_tick(fleet, begin_s, end_s):
        story.take(row)
    story.end()
    if not story.decisions:
        return story
    actions = reader.actions(fleet, begin_s, end_s)
    story.started, story.made, story.stopped = (
        accepted(actions, verb) for verb in (Verb.START, Verb.PROVISION, Verb.STOP)
    )
    story.refused = sum(
        any(o.code and o.kind is not OutcomeKind.UNKNOWN for o in a.outcomes) for a in actions
    )
    story.unknown = sum(any(o.kind is OutcomeKind.UNKNOWN for o in a.outcomes) for a in actions)
    story.lines += [*_refused(actions), *_events(reader.events(begin_s, end_s), fleet)]
    story.lines.sort(key=lambda line: line.at_s)
    return story


def _has(seen: FleetTick) -> str:
    return f"demand {work(seen.demand)}/s, {seen.in_service} in service, {seen.starting} starting, {seen.stopped} stopped"


def _refused(actions: Iterable[ActionRecord]) -> Iterator[Line]:
    """Yield a line for each call that failed for some or all of its VMs."""
    for action in actions:
        failed = Counter(f"{o.kind} {o.code}" for o in action.outcomes if o.code)
        if failed:
            told = ", ".join(f"{many} {what}" for what, many in failed.items())
            at_s = action.at_s if action.settled_at_s is None else action.settled_at_s
            yield Line(at_s, "refused", f"{action.intent.verb} {action.intent.count}: {told}")


def _events(events: Iterable[EventRecord], fleet: str) -> Iterator[Line]:
    for event in events:
        if event.fleet in (None, "", fleet):
            yield Line(event.at_s, event.kind, f"{event.kind}: {' '.join(event.text.split())}")


def _summary(story: Story, fleet: str) -> str:
    short = (
        f"short for {span(story.short_s)} in {plural(story.episodes, 'episode', 'episodes')}, the longest of "
        f"{span(story.longest_s)}, of {work(story.worst)}/s at worst"
        if story.episodes
        else "never short"
    )
    done = f"{story.started} started, {story.made} made, {story.stopped} stopped"
    if story.refused:
        done += f", {plural(story.refused, 'call was', 'calls were')} refused"
    if story.unknown:
        done += f", {plural(story.unknown, 'call was', 'calls were')} not answered; later listings showed the result"
    served = f"{story.least} to {story.most}" if story.least != story.most else str(story.most)
    return f"{fleet}, {plural(story.decisions, 'decision', 'decisions')}: {served} VMs in service; {done}; {short}."


def _document(story: Story, fleet: str, begin_s: float, end_s: float) -> dict[str, Any]:
    return {
        "version": FORM,
        "fleet": fleet,
        "from_s": begin_s,
        "to_s": end_s,
        "decisions": story.decisions,
        "started": story.started,
        "made": story.made,
        "stopped": story.stopped,
        "refused_calls": story.refused,
        "unknown_calls": story.unknown,
        "in_service_least": story.least,
        "in_service_most": story.most,
        "short_s": story.short_s,
        "longest_short_s": story.longest_s,
        "episodes": story.episodes,
        "worst_shortage": story.worst,
        "lines": [
            {"at": utc(line.at_s), "at_s": line.at_s, "what": line.what, "text": line.text}
            for line in story.lines
        ],
    }
