"""Quantities as people write them (`30s`, `30%`, `0.096/h`, `120/s`) and as the program stores them.

A bare number in a policy is ambiguous (seconds or minutes? 0.3 % or 30 %?), so units are written, and a number without one
is refused. Only zero needs none. Each quantity knows its range, and its messages use the unit in which it is written.

Rules of this file: `write` is the inverse of `validate`. The marks below are used in `Annotated[...]` of the models, where
pydantic asks them for their schema. Not here: which field has which quantity (`policy`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DURATION = re.compile(rf"(?:{NUMBER}(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(rf"({NUMBER})(ms|s|m|h|d)")


def refuse(message: str, advice: str) -> PydanticCustomError:
    """Return the error that a validator raises; message and advice reach the user unchanged."""
    return PydanticCustomError("refused", "{message}; {advice}", {"message": message, "advice": advice})


@dataclass(frozen=True, slots=True)
class Text:
    """How one kind of value is read and written.

    Attributes:
        noun: Name of the kind, for people.
        example: A valid text.
        pattern: Regular expression for editors (JSON Schema).
        read: Converts YAML's value to the program's; raises ValueError with advice for the user.
        write: The inverse.
    """

    noun: str
    example: str
    pattern: str
    read: Callable[[object], Any]
    write: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic validates and writes the value."""
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(self.write, when_used="json"),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON Schema for editors."""
        return {"type": ["string", "number"], "pattern": self.pattern, "examples": [self.example]}

    def validate(self, raw: object) -> Any:
        """Return the program's value.

        Raises:
            PydanticCustomError: The value is refused, with message and advice.
        """
        try:
            return self.read(raw)
        except ValueError as error:
            raise refuse(f"{shown(raw)} is not {self.noun}", str(error)) from None


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that is read and written by a `Text`, within a range that includes both ends.

    Attributes:
        text: How it is read and written.
        low, high: The range, in the program's unit.
    """

    text: Text
    low: float
    high: float

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic validates and writes the value."""
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(self.text.write, when_used="json"),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON Schema for editors."""
        return {**self.text.__get_pydantic_json_schema__(schema, handler), "x-range": self.range}

    @property
    def range(self) -> str:
        """The range in words."""
        return f"{self.text.write(self.low)} to {self.text.write(self.high)}"

    def validate(self, raw: object) -> float:
        """Return the program's value.

        Raises:
            PydanticCustomError: The value is refused or out of range, with message and advice.
        """
        value: float = self.text.validate(raw)
        if not self.low <= value <= self.high:
            raise refuse(f"{shown(raw)} is out of range", f"it must be {self.range}")
        return value


def shown(raw: object) -> str:
    """Return a raw value for a message, shortened if it is long."""
    if isinstance(raw, (dict, list, tuple)):
        return "a section" if isinstance(raw, dict) else "a list"
    text = "nothing" if raw is None else str(raw).lower() if isinstance(raw, bool) else str(raw)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


def _plain(number: float) -> str:
    """Return all digits of a number, without an exponent, which cannot be read back."""
    return f"{Decimal(f'{number:.12g}' if abs(number) < 1e12 else repr(number)):f}"


def _unit_reader(unit: str, factor: float, hint: str) -> Callable[[object], float]:
    pattern = re.compile(rf"({NUMBER})\s*{re.escape(unit)}")

    def read(raw: object) -> float:
        if _is_zero(raw):
            return 0.0
        found = pattern.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if found is None:
            raise ValueError(hint)
        return float(found[1]) / factor

    return read


def _is_zero(raw: object) -> bool:
    return isinstance(raw, (int, float)) and not isinstance(raw, bool) and raw == 0


def _read_duration(raw: object) -> float:
    if _is_zero(raw):
        return 0.0
    text = raw.strip().replace(" ", "") if isinstance(raw, str) else ""
    if not _DURATION.fullmatch(text):
        bare = isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0.0 < raw < math.inf
        example = f"`{_plain(raw)}s`" if bare else "`30s` or `1h30m`"  # type: ignore[arg-type]
        raise ValueError(f"write a number with ms, s, m, h or d, for example {example}")
    return sum(float(number) * SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def _write_duration(value: float) -> str:
    unit = next((unit for unit in ("d", "h", "m") if value and value % SECONDS[unit] == 0), "s")
    return f"{_plain(value / SECONDS[unit])}{unit}"


def _read_money(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
        raise ValueError("write a plain number, in the one currency you use throughout")
    return float(raw)


def _read_clock(raw: object) -> time | None:
    """Parse a time of day; None stands for 24:00, the end of the day."""
    if raw == "24:00":
        return None
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", raw) if isinstance(raw, str) else None
    if found is None:
        raise ValueError('write hours and minutes in quotes, for example "08:00"')
    return time(int(found[1]), int(found[2]), int(found[3] or 0))


def _read_beginning(raw: object) -> time:
    """Parse the time of day at which something begins."""
    found = _read_clock(raw)
    if found is None:
        raise ValueError('a day ends at 24:00: write "00:00", with the days after')
    return found


def _write_clock(value: time | None) -> str:
    if value is None:
        return "24:00"
    return value.isoformat("seconds" if value.second else "minutes")


def _read_days(raw: object) -> tuple[int, ...]:
    if raw == "daily":
        return tuple(range(7))
    found: set[int] = set()
    for part in raw.replace(" ", "").lower().split(",") if isinstance(raw, str) else ("",):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError("write days such as `mon-fri`, `sat,sun` or `daily`")
        length = (DAYS.index(last or first) - DAYS.index(first)) % 7
        found.update((DAYS.index(first) + step) % 7 for step in range(length + 1))
    return tuple(sorted(found))


def _write_days(days: tuple[int, ...]) -> str:
    return "daily" if len(days) == 7 else ",".join(DAYS[day] for day in days)


def _read_moment(raw: object) -> datetime:
    moment = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    if moment is None or moment.tzinfo is None:
        raise ValueError("write a time with its offset, for example `2026-03-01T08:00:00Z`")
    return moment


@dataclass(frozen=True, slots=True)
class MetricSelector:
    """Selects series of a Prometheus text: the metric's name, and labels that must match exactly."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


_METRIC_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"([^"\\\n]*)"\s*'


def _read_metric(raw: object) -> MetricSelector:
    found = (
        re.fullmatch(rf"({_METRIC_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*),?\}})?", raw)
        if isinstance(raw, str)
        else None
    )
    if found is None:
        raise ValueError(
            'write its name and optionally exact labels, for example `requests_total{code="200"}`'
        )
    return MetricSelector(found[1], tuple(re.findall(_LABEL, found[2] or "")))


def _write_metric(metric: MetricSelector) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in metric.labels)
    return f"{metric.name}{{{labels}}}" if labels else metric.name


@dataclass(frozen=True, slots=True)
class Matchers:
    """Labels that must match exactly."""

    labels: tuple[tuple[str, str], ...]


def _read_matchers(raw: object) -> Matchers:
    found = re.fullmatch(rf"\{{{_LABEL}(?:,{_LABEL})*,?\}}", raw.strip()) if isinstance(raw, str) else None
    if found is None:
        raise ValueError("write labels in quotes and braces, for example `'{service=\"web\"}'`")
    return Matchers(tuple(re.findall(_LABEL, found[0][1:-1])))


def _write_matchers(matchers: Matchers) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in matchers.labels) + "}"


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a step rule: VMs to add, or to remove if negative, and a share of the ordered VMs in the same way."""

    vms: int
    share: float


def _read_change(raw: object) -> Change:
    if isinstance(raw, int) and not isinstance(raw, bool):
        change = Change(raw, 0.0)
    else:
        found = re.fullmatch(rf"([+-])({NUMBER})(%?)", raw.strip()) if isinstance(raw, str) else None
        if found is None or (not found[3] and "." in found[2]):
            raise ValueError("write VMs or a share of them with a sign, for example `+2`, `-1` or `+10%`")
        amount = float(f"{found[1]}{found[2]}")
        change = Change(0, amount / 100) if found[3] else Change(int(amount), 0.0)
    if change == Change(0, 0.0):
        raise ValueError("a change of zero has no effect; remove the rule")
    if abs(change.vms) > 10_000 or not -1 <= change.share <= 10:
        raise ValueError("at most 10000 VMs, and from -100% to +1000%, at once")
    return change


def _write_change(change: Change) -> object:
    return f"{change.share * 100:+.10g}%" if change.share else f"{change.vms:+d}"


DURATION = Text("a duration", "30s", rf"^({NUMBER}(ms|s|m|h|d))+$", _read_duration, _write_duration)
PERCENT = Text(
    "a percentage",
    "30%",
    rf"^{NUMBER}\s*%$",
    _unit_reader("%", 100, "write a number with a percent sign, for example `30%`"),
    lambda value: f"{_plain(round(value * 100, 10))}%",
)
WORK = Text(
    "work per second",
    "120/s",
    rf"^{NUMBER}\s*/s$",
    _unit_reader("/s", 1, "write work per second, for example `120/s`"),
    lambda value: f"{_plain(value)}/s",
)
PRICE = Text(
    "a price per hour",
    "0.096/h",
    rf"^{NUMBER}\s*/h$",
    _unit_reader("/h", 1, "write money per VM and hour, for example `0.096/h`"),
    lambda value: f"{_plain(value)}/h",
)
MONEY = Text(
    "an amount of money", "0.01", r"", _read_money, lambda value: int(value) if value == int(value) else value
)
CLOCK_TIME = Text(
    "a time of day", "08:00", r"^([01]?\d|2[0-4]):[0-5]\d(:[0-5]\d)?$", _read_clock, _write_clock
)
BEGINNING = Text(
    "a time of day", "08:00", r"^([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", _read_beginning, _write_clock
)
DAYS_OF_WEEK = Text("a choice of days", "mon-fri", r"^[a-z,\- ]+$", _read_days, _write_days)
MOMENT = Text("a moment", "2026-03-01T08:00:00Z", r"^\d{4}-\d\d-\d\dT.*$", _read_moment, datetime.isoformat)
CHANGE = Text("a change", "+2", rf"^[+-]?{NUMBER}%?$", _read_change, _write_change)
METRIC = Text(
    "a metric", 'requests_total{code="200"}', rf"^{_METRIC_NAME}(\{{.*\}})?$", _read_metric, _write_metric
)
MATCHERS = Text("labels", '{service="web"}', r"^\{.*\}$", _read_matchers, _write_matchers)
