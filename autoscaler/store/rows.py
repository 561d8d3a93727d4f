"""Encodes the fleets of one tick as one blob, and decodes it.

Rules of this file: pure functions on bytes. The format number is stored beside the blob; a released format is decoded
forever, and a change of fields is a new number. A blob is zlib over a JSON head followed by one structured numpy row
per fleet, in roster order. The head holds the texts, the number of stages and, by fleet, the optional parts of
`FleetTick` (`_PARTS`) and the place if places have names. Format 2 adds operators' pauses and overrides in force;
format 1 is older than those, with a chain of eleven stages. Chains of eleven, of twelve (before objectives existed)
and of thirteen stages (before shared limits existed) are read as today's chain would have recorded them. Byte planes
instead of rows were measured and do not pay: the floats of live demand do not compress.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from operator import attrgetter, is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Reason, Stage
from autoscaler.errors import InvariantError, JournalError
from autoscaler.ports import DueBurst, Earnings, FleetTick, Memories, RealVms, SharedHold

FORMAT = 2
"""Format that `encode` writes."""

_FLOATS = (
    "demand",
    "observed_at_s",
    "coverage",
    "forecast",
    "forecast_hi",
    "capacity",
    "shortage",
    "cost",
)
_COUNTS = (
    "in_service",
    "starting",
    "draining",
    "stopping",
    "stopped",
    "provisioned",
    "stoppable",
    "wish",
    "desired",
    "start",
    "provision",
    "stop",
    "warm_target",
)
_ALLOWED = ("may_start", "may_provision", "may_stop")
_OVERRIDES = ("floor", "ceiling")
_STAGES_OF_1 = 11
_HEAD = struct.Struct("<I")
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_STAGES = re.compile(rb'\{"stages":(\d+),')
_ZLIB_LEVEL = 1  # level 6 saves a tenth of the bytes and costs twice the time


@cache
def row_dtype(stages: int, number: int = FORMAT) -> np.dtype[np.void]:
    """The numpy dtype of a row, for a format and a number of stages."""
    added = [(name, "<i8") for name in _OVERRIDES] + [(name, "?") for name in _ALLOWED] if number > 1 else []
    return np.dtype(
        [(name, "<f8") for name in _FLOATS]
        + [(name, "<i8") for name in _COUNTS]
        + [("freshness", "u1"), ("censored", "?"), ("stages", "<i8", (stages,)), ("reasons", "u1", (stages,))]
        + added
    )


_FIRST = attrgetter(*_FLOATS, *_COUNTS, "freshness", "censored")
_LAST = attrgetter(*_OVERRIDES, *_ALLOWED)


@cache
def _packer(stages: int) -> Callable[..., bytes]:
    """A function that packs one row of `row_dtype`; for a few rows it is faster than numpy."""
    counts = f"{len(_COUNTS)}qB?{stages}q{stages}B{len(_OVERRIDES)}q{len(_ALLOWED)}?"
    return struct.Struct(f"<{len(_FLOATS)}d{counts}").pack


@dataclass(frozen=True, slots=True)
class Raw:
    """An encoded but not yet compressed tick.

    Attributes:
        stages: Number of stages.
        rows: The rows as bytes, without texts.
        fleets: The fleets of the rows, for their texts.
    """

    stages: int
    rows: bytes
    fleets: Sequence[FleetTick]


def encode(fleets: Sequence[FleetTick]) -> bytes:
    """Return the blob of format `FORMAT` for these fleets.

    Raises:
        InvariantError: As for `raw`.
    """
    return blob(raw(fleets))


def raw(fleets: Sequence[FleetTick]) -> Raw:
    """Encode the rows of a tick, without compressing them.

    Raises:
        InvariantError: Fleets have stage lists of different lengths, or a value is out of its type's range.
    """
    stages = len(fleets[0].stages) if fleets else 0
    for fleet in fleets:
        if len(fleet.stages) != stages or len(fleet.reasons) != stages:
            raise InvariantError(
                f"Fleet {fleet.fleet} records {len(fleet.stages)} stages and {len(fleet.reasons)} reasons, "
                f"others of the same tick {stages}; please report this."
            )
    pack = _packer(stages)
    try:
        rows = b"".join(
            [pack(*_FIRST(fleet), *fleet.stages, *fleet.reasons, *_LAST(fleet)) for fleet in fleets]
        )
    except (struct.error, OverflowError, TypeError, ValueError) as error:
        raise InvariantError(
            f"A tick holds a value that the journal cannot store: {error}; please report."
        ) from error
    return Raw(stages, rows, fleets)


def blob(of: Raw) -> bytes:
    """Compress an encoded tick to a blob of format `FORMAT`."""
    fleets = of.fleets
    texts = tuple([fleet.sentence for fleet in fleets]), tuple([fleet.source_error for fleet in fleets])
    parts: dict[str, dict[int, tuple[Any, ...]]] = {}
    for name, part, of_part in _PARTS:
        known = {at: of_part(value) for at, fleet in enumerate(fleets) if (value := part(fleet)) is not None}
        if known:
            parts[name] = known
    if any(places := tuple([fleet.provider for fleet in fleets])):
        parts["providers"] = dict(enumerate((place,) for place in places))
    head = _head(of.stages, *texts, parts) if parts else _plain_head(of.stages, *texts)
    return zlib.compress(head + of.rows, _ZLIB_LEVEL)


_PARTS = tuple(
    (name, attrgetter(of), attrgetter(*[f.name for f in fields(kind)]))
    for name, of, kind in (
        ("real", "real", RealVms),
        ("earnings", "earnings", Earnings),
        ("shared", "shared", SharedHold),
        ("bursts", "burst", DueBurst),
        ("memories", "memories", Memories),
    )
)
"""Optional parts in the head, keyed by position of the fleet, with their fields; left out if no fleet has any."""


def _head(
    stages: int,
    sentences: tuple[str, ...],
    source_errors: tuple[str, ...],
    parts: dict[str, dict[int, tuple[Any, ...]]],
) -> bytes:
    """The head of a blob, preceded by its length."""
    told = {"stages": stages, "sentences": sentences, "source_errors": source_errors, **parts}
    head = _JSON.encode(told).encode("utf-8", "replace")
    return _HEAD.pack(len(head)) + head


@lru_cache(maxsize=4)
def _plain_head(stages: int, sentences: tuple[str, ...], source_errors: tuple[str, ...]) -> bytes:
    """The head if there are only texts, cached because most ticks share them with the one before."""
    return _head(stages, sentences, source_errors, {})


class Encoded:
    """Encodes tick after tick, and reuses the last blob if the rows are the same objects."""

    def __init__(self) -> None:
        self._raw: Raw | None = None
        self._names: tuple[str, ...] = ()
        self._packed: Raw | None = None
        self._blob = b""

    def of(self, fleets: tuple[FleetTick, ...]) -> tuple[bytes, tuple[str, ...]]:
        """Return the blob, as `encode` does, and the names of the fleets in row order."""
        made, names = self.raw(fleets)
        return self.blob(made), names

    def raw(self, fleets: tuple[FleetTick, ...]) -> tuple[Raw, tuple[str, ...]]:
        """Return the encoded tick instead of the blob; the same object as for the last tick if nothing has changed."""
        last = self._raw
        if last is None or len(fleets) != len(last.fleets) or not all(map(is_, fleets, last.fleets)):
            last = self._raw = raw(fleets)
            self._names = tuple([fleet.fleet for fleet in fleets])
        return last, self._names

    def blob(self, made: Raw) -> bytes:
        """Compress an encoded tick; the last result is reused for the same object."""
        if made is not self._packed:
            self._packed, self._blob = made, blob(made)
        return self._blob


def decode(number: int, body: bytes, names: Sequence[str], wanted: Sequence[int]) -> tuple[FleetTick, ...]:
    """Decode the rows at the positions `wanted` of a blob.

    Args:
        number: Format of the blob.
        body: The blob.
        names: The fleets of the roster, in row order.
        wanted: Positions in the roster.

    Raises:
        JournalError: The format is unknown or the blob is damaged.
    """
    if not 1 <= number <= FORMAT:
        raise JournalError(
            f"The journal holds ticks in format {number}, this program reads formats up to {FORMAT}. "
            "Install a newer one."
        )
    try:
        rows, head = _unpack(number, body)
        sentences, source_errors = head["sentences"], head["source_errors"]
        real, earnings, shared = (head.get(part, {}) for part in ("real", "earnings", "shared"))
        bursts, memories, places = (head.get(part, {}) for part in ("bursts", "memories", "providers"))
        if not len(rows) == len(names) == len(sentences) == len(source_errors):
            raise JournalError(
                f"A tick in the journal has {len(rows)} rows for {len(names)} fleets: it is damaged."
            )
        ticks = tuple(
            replace(
                _fleet_tick(names[i], rows[i], sentences[i], source_errors[i]),
                real=RealVms(*real[str(i)]) if str(i) in real else None,
                earnings=Earnings(*earnings[str(i)]) if str(i) in earnings else None,
                shared=SharedHold(*shared[str(i)]) if str(i) in shared else None,
                burst=DueBurst(*bursts[str(i)]) if str(i) in bursts else None,
                memories=Memories(*memories[str(i)]) if str(i) in memories else None,
                provider=places[str(i)][0] if str(i) in places else "",
            )
            for i in wanted
        )
        return tuple(map(_as_today, ticks))
    except (zlib.error, struct.error, ValueError, KeyError, TypeError) as error:
        raise JournalError(
            f"A tick in the journal is damaged ({error}). Restore a backup, or move the journal aside and let the daemon start a new one."
        ) from error


def numbers(number: int, body: bytes) -> NDArray[np.void]:
    """Decode only the rows of a blob, one per fleet in roster order, without its texts.

    Raises:
        JournalError: The format is unknown or the blob is damaged.
    """
    if not 1 <= number <= FORMAT:
        raise JournalError(f"A tick of format {number}, where formats up to {FORMAT} are known.")
    try:
        raw = zlib.decompress(body)
        (length,) = _HEAD.unpack_from(raw)
        head = raw[_HEAD.size : _HEAD.size + length]
        found = _STAGES.match(head)
        stages = int(found[1]) if found else json.loads(head)["stages"]
        return np.frombuffer(raw, dtype=row_dtype(stages, number), offset=_HEAD.size + length)
    except (zlib.error, struct.error, ValueError, KeyError, TypeError) as error:
        raise JournalError(f"A tick in the journal is damaged ({error}).") from error


def _unpack(number: int, body: bytes) -> tuple[NDArray[np.void], dict[str, Any]]:
    raw = zlib.decompress(body)
    (length,) = _HEAD.unpack_from(raw)
    start = _HEAD.size + length
    head = json.loads(raw[_HEAD.size : start].decode("utf-8"))
    return np.frombuffer(raw, dtype=row_dtype(head["stages"], number), offset=start), head


def _fleet_tick(name: str, row: np.void, sentence: str, source_error: str) -> FleetTick:
    values = dict(zip(row.dtype.names or (), row.item(), strict=True))
    values["stages"] = tuple(values["stages"].tolist())
    values["reasons"] = tuple(values["reasons"].tolist())
    return FleetTick(fleet=name, sentence=sentence, source_error=source_error, **values)


def _as_today(tick: FleetTick) -> FleetTick:
    """Convert a tick of an older chain: a stage that did not exist left the wish as it was."""
    if len(tick.stages) == _STAGES_OF_1:
        tick = _with_stage(tick, int(Stage.PAUSE) - 1)
    if len(tick.stages) == _STAGES_OF_1 + 1:
        tick = _with_stage(tick, int(Stage.ECONOMIC))
    if len(tick.stages) == _STAGES_OF_1 + 2:
        tick = _with_stage(tick, int(Stage.SHARED))
    return tick


def _with_stage(tick: FleetTick, at: int) -> FleetTick:
    return replace(
        tick,
        stages=(*tick.stages[:at], tick.stages[at - 1], *tick.stages[at:]),
        reasons=(*tick.reasons[:at], int(Reason.NONE), *tick.reasons[at:]),
    )
