"""What a restarted daemon restores, besides learned start times and capacities.

Two kinds: troubles (places without room, VMs that are left alone, hosts on which a fleet has VMs), which are small, change
rarely and matter soon after a restart, so they are saved soon; and states of core (forecasts, prices and models of
objectives, guards), which are large and matter for days. Beside them stands what each fleet's demand means and since when,
because the journal's older demand of that name must then not be learned from. State that is tied to the clock is useful
only while the clock moves forward.

Rules of this file: state that cannot be read, or has another version, is reported and started afresh, at no other cost.
Troubles of fleets in shadow are not saved, because their VMs are simulated.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from autoscaler.clock import give_way
from autoscaler.config.policy import Policy
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.queues import QueueState
from autoscaler.core.state import LaneState
from autoscaler.core.state_base import Dumped, Remembered
from autoscaler.daemon.fleets import Fleet, Fleets
from autoscaler.daemon.learned.measured import meaning, measure
from autoscaler.daemon.learned.packing import packed, unpacked
from autoscaler.daemon.vms.places import Places
from autoscaler.ports import ALL_FLEETS, Learned, name_of

DRY, ODDS, ASIDE, ZONES = "dry", "odds", "aside", "zones"
MEASURES = "measures"
LANES, FORECASTS, QUEUES = "lanes", "forecasts", "queues"
"""Names under which the rows are stored; those of states are the names in `Fleets.states`."""
TROUBLES_VERSION, STATES_VERSION = 1, 1
"""Versions of the rows' formats; states of core also carry versions of their own."""
FRESH_S = 1800.0
"""Age in seconds below which stored forecasts need not learn from the past again."""
_MOST_BYTES = 2**24
_TROUBLES = DRY, ODDS, ASIDE, ZONES
_SMALL = *_TROUBLES, MEASURES
_STATES: dict[str, type[Remembered]] = {LANES: LaneState, FORECASTS: SeriesState, QUEUES: QueueState}
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError)


class RestartStateStore:
    """Saves and restores what a restarted daemon needs."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], bytes] = {}

    # ── troubles ───────────────────────────────────────────────────────────────────────────────────────

    def troubles(self, fleets: Sequence[Fleet], now_s: float, *, odds: bool) -> list[Learned]:
        """Return the troubles that have changed since `kept`.

        Args:
            fleets: All fleets.
            now_s: The current time.
            odds: Whether to include the odds of starts, which change with every start.
        """
        acting = [fleet for fleet in fleets if fleet.policy.act]
        found = []
        for name, places in _places(acting).items():
            found.append(_of_place(DRY, name, places.dry_rows()))
            if odds:
                found.append(_of_place(ODDS, name, places.odds_rows()))
        for fleet in acting:
            # Before the first listing, VMs of which an earlier run remembered something are not known yet.
            if fleet.inventory.listed:
                rows = fleet.inventory.set_aside_rows(now_s)
                found.append(Learned(fleet.name, ASIDE, TROUBLES_VERSION, _text(rows)))
                if fleet.inventory.parts.exist:
                    zones = [fleet.inventory.zones()]
                    found.append(Learned(fleet.name, ZONES, TROUBLES_VERSION, _text(zones)))
        return [row for row in found if self._kept.get((row.fleet, row.name), _NOTHING) != row.body]

    def measures(self, fleets: Sequence[Fleet]) -> list[Learned]:
        """Return what the demand of each fleet means and since when, where that has changed since `kept`."""
        found = []
        for fleet in fleets:
            rows = [[meaning(fleet.policy), max(fleet.measured_since_s, 0.0)]]
            found.append(Learned(fleet.name, MEASURES, TROUBLES_VERSION, _text(rows)))
        return [row for row in found if self._kept.get((row.fleet, row.name)) != row.body]

    def kept(self, rows: Iterable[Learned]) -> None:
        """Note that these rows are stored."""
        self._kept.update({(row.fleet, row.name): row.body for row in rows if _kind(row) in _SMALL})

    def take_up_troubles(
        self, fleets: Sequence[Fleet], learned: Iterable[Learned], now_s: float
    ) -> list[str]:
        """Restore the troubles that an earlier run knew; return, for people, which of them cannot be read."""
        wrong = []
        acting = {fleet.name: fleet for fleet in fleets if fleet.policy.act}
        there = _places(acting.values())
        for row in learned:
            if (kind := _kind(row)) not in _TROUBLES:
                continue
            try:
                rows = _rows(row)
                if kind == ASIDE and row.fleet in acting:
                    acting[row.fleet].inventory.recall_set_aside(rows)
                elif kind == ZONES and row.fleet in acting:
                    acting[row.fleet].inventory.parts.recall(rows[0])
                elif kind in (DRY, ODDS) and (places := there.get(row.name.removeprefix(kind).strip())):
                    places.take_up(*((rows, []) if kind == DRY else ([], rows)), now_s)
            except _UNREADABLE as error:
                wrong.append(
                    f"{_WORDS[kind]}{_of(row.fleet)} cannot be read and will be learned again ({error})"
                )
            else:
                self._kept[row.fleet, row.name] = row.body
        return wrong

    def take_up_measures(
        self, fleets: Iterable[Fleet], learned: Iterable[Learned], now_s: float
    ) -> list[str]:
        """Note since when each fleet measures what it measures; return, for people, what of it cannot be read."""
        wrong, known = [], {fleet.name: fleet for fleet in fleets}
        for row in learned:
            if row.name != MEASURES or row.fleet not in known:
                continue
            fleet = known[row.fleet]
            try:
                ((meant, since_s),) = _rows(row)
                fleet.measured_since_s = float(since_s) if meant == meaning(fleet.policy) else now_s
            except _UNREADABLE as error:
                wrong.append(f"{_WORDS[MEASURES]}{_of(row.fleet)} cannot be read ({error})")
        return wrong

    # ── states of core ─────────────────────────────────────────────────────────────────────────────────

    async def states(self, fleets: Fleets, now_s: float) -> list[Learned]:
        """Return what core remembers now, as rows."""
        found = []
        names = [fleet.name for fleet in fleets.all]
        measures = [_fingerprint(fleet.policy) for fleet in fleets.all]
        roster = np.frombuffer(json.dumps([names, measures]).encode(), np.uint8).astype(np.uint16)
        # The tick ends only after this, so all states are of the same tick even though other tasks run in between.
        for name, state in fleets.states().items():
            whole: Dumped = {"at_s": now_s, "tick_s": fleets.tick_s, "roster": roster, "state": state.dump()}
            found.append(Learned(ALL_FLEETS, name, STATES_VERSION, await packed(whole)))
            await give_way()
        return found

    def take_up_states(self, fleets: Fleets, learned: Iterable[Learned], now_s: float) -> list[str]:
        """Restore what core remembered; return, for people, what of it cannot be read.

        A fleet that measures something else than before starts its forecasts afresh. A new fleet starts afresh
        altogether.
        """
        wrong = []
        for row in learned:
            kind = _STATES.get(row.name)
            if kind is None:
                continue
            try:
                self._take_up(fleets, row, kind, now_s)
            except _UNREADABLE as error:
                wrong.append(f"{_WORDS[row.name]} cannot be read and start over ({error})")
        return wrong

    def _take_up(self, fleets: Fleets, row: Learned, kind: type[Remembered], now_s: float) -> None:
        if row.version != STATES_VERSION:
            raise ValueError(f"it is of version {row.version}")
        got: Any = unpacked(row.body)
        names, measures = json.loads(got["roster"].astype(np.uint8).tobytes())
        if got["tick_s"] != fleets.tick_s:
            raise ValueError(f"stored at ticks of {got['tick_s']:g} s, now of {fleets.tick_s:g} s")
        if got["at_s"] > now_s + fleets.tick_s:
            raise ValueError("the clock was set back since")
        was = {(name, told): lane for lane, (name, told) in enumerate(zip(names, measures, strict=True))}
        same = [was.get((fleet.name, _fingerprint(fleet.policy)), -1) for fleet in fleets.all]
        by_name = {name: lane for lane, name in enumerate(names)}
        lanes = [by_name.get(fleet.name, -1) for fleet in fleets.all] if kind is LaneState else same
        state = kind.restore(got["state"])
        fleets.go_on_from(state, np.array(lanes, np.int64))
        if isinstance(state, LaneState):
            known = set(state.trial.lanes.tolist())
            fleets.experienced |= {f.name for f, lane in zip(fleets.all, lanes, strict=True) if lane in known}
        if kind is SeriesState and now_s - got["at_s"] <= FRESH_S:
            fleets.remembered |= {f.name for f, lane in zip(fleets.all, lanes, strict=True) if lane >= 0}


_WORDS = {
    DRY: "where there was no room",
    ODDS: "how often starts worked",
    ASIDE: "which VMs are left alone",
    ZONES: "which hosts have VMs",
    MEASURES: "since when what is measured means the same",
    LANES: "what guards and objectives remembered",
    FORECASTS: "forecasts",
    QUEUES: "what was known of queues",
}


def _places(fleets: Iterable[Fleet]) -> dict[str, Places]:
    """Return what is known of places, by the name of the provider, which is empty if there is only one."""
    return {name_of(fleet.provider): fleet.inventory.places.shared for fleet in fleets}


def _of_place(kind: str, name: str, rows: Sequence[Sequence[object]]) -> Learned:
    """Return the row of one provider; its name is a part of the row's, because zones of two accounts may have equal names."""
    return Learned(ALL_FLEETS, f"{kind} {name}".rstrip(), TROUBLES_VERSION, _text(rows))


def _kind(row: Learned) -> str:
    return row.name.partition(" ")[0]


def _of(fleet: str) -> str:
    return f" of {fleet}" if fleet else ""


def _fingerprint(policy: Policy) -> str:
    """Return a digest that is equal for policies that measure the same thing."""
    return hashlib.blake2b(repr(measure(policy)).encode(), digest_size=12).hexdigest()


def _text(rows: Sequence[Sequence[object]]) -> bytes:
    return zlib.compress(json.dumps(rows, separators=(",", ":"), allow_nan=False).encode(), 1)


_NOTHING = _text([])
"""Content of an empty row, which counts as stored from the start."""


def _rows(row: Learned) -> list[list[Any]]:
    if row.version != TROUBLES_VERSION:
        raise ValueError(f"it is of version {row.version}")
    expand = zlib.decompressobj()
    try:
        text = expand.decompress(row.body, _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not expand.eof:
        raise ValueError("it ends too soon, or never")
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(each, list) for each in rows):
        raise ValueError("it is no table")
    return rows
