"""Parses times to epoch seconds: ISO 8601, epoch numbers in a given unit, or any strptime pattern.

Parsing is strict, because a time in the wrong unit or zone shifts a whole recording, and nothing later would notice. The
form is taken from the first row, and all other rows must have it. Numbers that can only be milliseconds are refused as
seconds. Local time is converted only if it names a single moment.

Rules of this file: whole arrays first (`read_fast`, None for uncommon forms), then text by text where needed (`read_slow`).
Both give the same result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces.trace import Float, RowError, describe_time

AUTO = "auto"
ISO = "iso"
UNITS_PER_S: dict[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Units of epoch numbers."""

LATEST_S = 3e11
"""Epoch seconds beyond this (the year 11476) are milliseconds, which reach this number in 1979."""

_QUARTER_S = 900.0
"""Since 1972, where recorded epoch times begin, clocks have changed only at whole quarters of an hour."""
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d\b")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  naive on purpose: local seconds are counted from it


@dataclass(frozen=True, slots=True)
class TimeForm:
    """The format of times.

    Attributes:
        style: `auto` (ISO 8601 or epoch seconds, depending on the first row), `iso`, a unit of `UNITS_PER_S`, or a pattern
            of `datetime.strptime`.
        zone: Zone of times without an offset.
        repeats: Whether consecutive rows may have the same time (events, tables of VMs).
    """

    style: str = AUTO
    zone: tzinfo = UTC
    repeats: bool = False

    @classmethod
    def build(cls, style: str = AUTO, zone: str = "UTC", *, repeats: bool = False) -> TimeForm:
        """Check the names and build the format.

        Raises:
            TraceError: The style or the zone is unknown.
        """
        from zoneinfo import ZoneInfo

        if style not in {AUTO, ISO, *UNITS_PER_S} and "%" not in style:
            raise TraceError(
                f"`{style}` is not a time format; write {AUTO}, {ISO}, {', '.join(UNITS_PER_S)}, or a pattern "
                "such as %d/%m/%Y %H:%M"
            )
        try:
            return cls(style, UTC if zone.upper() == "UTC" else ZoneInfo(zone), repeats)
        except (KeyError, ValueError, OSError):
            raise TraceError(f"`{zone}` is not a time zone; write for example Europe/Berlin") from None


class StampReader:
    """Reads one column of times, block by block. The first text decides what `auto` means.

    Args:
        form: The format of the times.
    """

    def __init__(self, form: TimeForm) -> None:
        self._form = form
        self._style = form.style
        self._local: list[NDArray[np.bool_]] = []

    def read_fast(self, texts: NDArray[np.bytes_]) -> Float | None:
        """Parse the times of a block as `read_slow` would. None if `read_slow` is needed."""
        style = self._decided(texts[0].decode("utf-8", "replace"))
        if style in UNITS_PER_S:
            try:
                seconds = texts.astype(np.float64) / UNITS_PER_S[style]
            except ValueError:
                return None
            if not (np.abs(seconds) <= LATEST_S).all():
                return None
            self._local.append(np.zeros(len(texts), np.bool_))
            return seconds
        if style == ISO and (seconds_or_none := _plain_iso(texts)) is not None:
            self._local.append(np.full(len(texts), texts.dtype.itemsize == 19))
            return seconds_or_none
        return None

    def read_slow(self, texts: Sequence[str]) -> Float:
        """Parse the times of a block: epoch seconds for times with an offset, local seconds for others.

        Raises:
            RowError: The first text that is not a time.
        """
        style = self._decided(texts[0])
        seconds, local = np.empty(len(texts)), np.zeros(len(texts), np.bool_)
        parse = self._number if style in UNITS_PER_S else self._calendar(style)
        for row, text in enumerate(texts):
            try:
                seconds[row], local[row] = parse(text)
            except (ValueError, OverflowError):
                raise RowError(row, self._not_a_time(text, style)) from None
        if (late := _too_late(seconds)) is not None:
            raise RowError(late, self._other_unit(texts[late], seconds[late]))
        self._local.append(local)
        return seconds

    def read_numbers(self, values: Float) -> Float:
        """Convert the times of a block of numbers, such as epoch seconds in Parquet.

        Raises:
            RowError: The first number that is not a time.
        """
        if not len(values):
            return values
        style = self._decided(_as_text(values[0]))
        if style not in UNITS_PER_S:  # such as 20260301 with a pattern
            return self.read_slow([_as_text(value) for value in values.tolist()])
        seconds: Float = values / UNITS_PER_S[style]
        if (late := _too_late(seconds)) is not None:
            raise RowError(late, self._other_unit(_as_text(values[late]), seconds[late]))
        self._local.append(np.zeros(len(values), np.bool_))
        return seconds

    def read_moments(self, seconds: Float, *, local: bool) -> Float:
        """Take a block of times in seconds, in UTC or `local`."""
        self._local.append(np.full(len(seconds), local))
        return seconds

    def forget_block(self) -> None:
        """Forget the last block given to `read_fast`, which will be read again."""
        self._local.pop()

    def finish(self, seconds: Float) -> Float:
        """Convert local times in the concatenated blocks to epoch seconds.

        Raises:
            RowError: A local time that does not exist, or that may be either of two.
        """
        if self._form.zone is UTC or not self._local:
            return seconds
        local = np.concatenate(self._local)
        if not local.any():
            return seconds
        rows = np.flatnonzero(local)
        converted = seconds.copy()
        try:
            converted[rows] = to_utc(seconds[rows], self._form.zone, repeats=self._form.repeats)
        except RowError as error:
            raise RowError(int(rows[error.row]), str(error)) from None
        return converted

    def _decided(self, first: str) -> str:
        if self._style == AUTO:
            try:
                float(first)
            except ValueError:
                self._style = ISO
            else:
                if _is_compact_date(first):
                    raise RowError(
                        0,
                        f"timestamp `{first}` may be a date or epoch seconds; say which (`--time-format %Y%m%d` or "
                        "`--time-format s` where it is imported)",
                    )
                self._style = "s"
        return self._style

    def _other_unit(self, text: str, seconds: float) -> str:
        """Explain why an epoch number cannot be in this unit, and name the likely unit."""
        raw = abs(seconds) * UNITS_PER_S.get(self._style, 1.0)
        unit = next((unit for unit in ("ms", "us") if raw / UNITS_PER_S[unit] <= LATEST_S / 10), "ns")
        names = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
        return (
            f"timestamp `{text[:40]}` is in the year {1970 + seconds / 31_556_952:.0f} if it is "
            f"{names.get(self._style, 'seconds')}; it looks like {names[unit]}: say so (`--time-format {unit}` "
            "where it is imported)"
        )

    def _number(self, text: str) -> tuple[float, bool]:
        return float(text) / UNITS_PER_S[self._style], False

    @staticmethod
    def _calendar(style: str) -> Callable[[str], tuple[float, bool]]:
        def parse(text: str) -> tuple[float, bool]:
            at = (
                datetime.fromisoformat(text) if style == ISO else datetime.strptime(text, style)  # noqa: DTZ007
            )
            if at.tzinfo is None:
                return (at - _EPOCH).total_seconds(), True
            return at.timestamp(), False

        return parse

    def _not_a_time(self, text: str, style: str) -> str:
        if style == ISO and _TIME_OF_DAY.match(text):
            return (
                f"timestamp `{text[:40]}` is a time of day; if another column has the date, name both "
                '(`--time "date time"` where it is imported)'
            )
        return f"timestamp `{text[:40]}` is not a time; wanted is {self._like(style)}"

    def _like(self, style: str) -> str:
        if style == ISO:
            return (
                "ISO 8601 such as 2026-03-01T08:00:00Z (`--time-format` gives another format when importing)"
            )
        if style in UNITS_PER_S:
            as_first = " as in the first row" if self._form.style == AUTO else ""
            return f"epoch {'seconds' if style == 's' else style}{as_first}"
        return f"the pattern {style}"


def _too_late(seconds: Float) -> int | None:
    """Return the first row that is later than any time can be, or None. NaN is left to the checks of the trace."""
    late = np.abs(seconds) > LATEST_S
    return int(np.argmax(late)) if late.any() else None


def _as_text(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) and value == math.floor(value) else repr(float(value))


def _is_compact_date(text: str) -> bool:
    if len(text) != 8 or not text.isdigit():
        return False
    try:
        return 1900 <= datetime.strptime(text, "%Y%m%d").year < 2100  # noqa: DTZ007  only whether it is a date
    except ValueError:
        return False


def _plain_iso(texts: NDArray[np.bytes_]) -> Float | None:
    """Parse `YYYY-MM-DDTHH:MM:SS`, all with Z or all without. None if any text is written differently."""
    width = texts.dtype.itemsize
    if width not in {19, 20}:
        return None
    letters = np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), width)
    signs = {4: b"-", 7: b"-", 13: b":", 16: b":", **({19: b"Z"} if width == 20 else {})}
    if any((letters[:, at] != sign[0]).any() for at, sign in signs.items()):
        return None
    if not np.isin(letters[:, 10], (ord("T"), ord(" "))).all():
        return None
    digits = letters[:, [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]]
    if ((digits < ord("0")) | (digits > ord("9"))).any():
        return None
    plain = np.ascontiguousarray(letters[:, :19]).view("S19").ravel()
    try:
        return plain.astype("datetime64[s]").astype(np.int64).astype(np.float64)
    except ValueError:
        return None


def to_utc(local: Float, zone: tzinfo, *, repeats: bool) -> Float:
    """Convert local seconds (counted as if the zone were UTC) to epoch seconds.

    When the clock is set back, an hour occurs twice. The order of the rows tells the two apart: up to the first step back it
    is the first, from there on the second.

    Raises:
        RowError: A time that the zone does not have, or has twice in rows whose order does not tell which.
    """
    quarters, place = np.unique(np.floor(local / _QUARTER_S), return_inverse=True)
    offsets = np.array([_offsets(quarter * _QUARTER_S, zone) for quarter in quarters.tolist()])
    first, second = offsets[place, 0], offsets[place, 1]
    if (first < second).any():
        row = int(np.argmax(first < second))
        raise RowError(
            row,
            f"timestamp {describe_time(local[row]).removesuffix('Z')} does not exist in {zone}, where the clock was set forward then; the times may be in another zone",
        )
    twice = np.flatnonzero(first > second)
    late = np.zeros(len(local), np.bool_)
    for night in np.split(twice, np.flatnonzero(np.diff(twice) > 1) + 1):
        if len(night):
            step = np.diff(local[night])
            back = (step < 0) if repeats else (step <= 0)
            if not back.any():
                row = int(night[0])
                raise RowError(
                    row,
                    f"timestamp {describe_time(local[row]).removesuffix('Z')} occurs twice in {zone}, where the clock was set back then, and the order of the rows does not tell which one is meant; export in UTC or with offsets",
                )
            late[night[int(np.argmax(back)) + 1 :]] = True
    offset: Float = np.where(late, second, first)
    return local - offset


def _offsets(local_s: float, zone: tzinfo) -> tuple[float, float]:
    """Return the seconds ahead of UTC before and after a change of the clock. They are equal where there is no change."""
    at = _EPOCH + timedelta(seconds=local_s)
    found = [at.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)]
    before, after = (offset.total_seconds() if offset else 0.0 for offset in found)
    return before, after
