"""Building blocks of generated traffic: levels, cycles, trends, crowds, ramps, batches, outages, and noise.

The expected rate is the sum of the parts that add (level, daily, crowds, ramps, batches), multiplied by the factors of the
others (weekly, trend). Counts are drawn around it with a stated dispersion, a gauge with a stated variation.

Rules of this file: a trace is a pure function of its recipe. Every draw comes from a counter-based stream (Philox: Salmon,
Moraes, Dror and Shaw, 2011) keyed by seed, purpose, and the day or hour since the epoch. So adding a part does not shift the
draws of other parts, longer traffic begins with the shorter traffic of the same recipe, and hours with the same expected
rate have the same values.

How recipes are written is in `recipe`, the demonstration's day in `synth`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float
from autoscaler.errors import TraceError
from autoscaler.traces.trace import Trace, TraceKind

HOUR_S, DAY_S = 3600.0, 86_400.0
DEFAULT_START_S = 1_772_409_600.0
"""Epoch seconds of 2026-03-02T00:00:00Z, a Monday."""
VM_CAPACITY_PER_S = 120.0
"""Work per second of one VM that the defaults are made for: 5 to 18 VMs on a day, 45 in a crowd."""
MORNING_S = 10 * HOUR_S + 5 * 60.0
"""Usual time of a morning's crowd, in seconds after midnight."""
MAX_INTERVALS = 50_000_000
_MONDAY_S = 4 * DAY_S  # 1970-01-05
_FADED = 3
"""Decay times after which what is left of a crowd is negligible (20 ** -3)."""


@dataclass(frozen=True, slots=True)
class Level:
    """A constant level.

    Attributes:
        work: Work per second.
    """

    work: float


@dataclass(frozen=True, slots=True)
class Daily:
    """A cosine from 0 to its amplitude once a day.

    Attributes:
        amplitude: Work per second at the peak.
        peak_at_s: Time of the peak, seconds after midnight UTC.
    """

    amplitude: float
    peak_at_s: float = 13 * HOUR_S


@dataclass(frozen=True, slots=True)
class Weekly:
    """A factor on Saturdays and Sundays (UTC).

    Attributes:
        weekend: The factor by which the sum of all adding parts is multiplied.
    """

    weekend: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A factor that starts at 1 and changes linearly, but never goes below 0.

    Attributes:
        per_day: Change of the factor per day; negative for falling traffic.
    """

    per_day: float


@dataclass(frozen=True, slots=True)
class Crowd:
    """One flash crowd.

    Attributes:
        at_s: When it begins, in seconds after the midnight (UTC) at or before the start of the trace.
        rise_s: Time from its beginning to its peak, along half a cosine.
        height: Work per second that it adds at its peak.
        decay_s: Time from its peak to a twentieth of it, falling exponentially.
    """

    at_s: float = MORNING_S
    rise_s: float = 240.0
    height: float = 29.0 * VM_CAPACITY_PER_S
    decay_s: float = 2400.0


@dataclass(frozen=True, slots=True)
class Crowds:
    """Flash crowds at random times, with exponentially distributed heights.

    Attributes:
        per_day: Expected number a day (Poisson).
        height: Mean of the work per second that one adds at its peak.
        rise_s, decay_s: As for a single crowd.
        name: Name of the stream of draws; crowds with the same name come at the same times.
    """

    per_day: float
    height: float
    rise_s: float = 240.0
    decay_s: float = 2400.0
    name: str = "crowds"


@dataclass(frozen=True, slots=True)
class Ramp:
    """A linear rise from 0 to its height, which then stays.

    Attributes:
        begin_s, end_s: Seconds after the midnight (UTC) at or before the start.
        height: Work per second at the end; may be negative if other parts add more.
    """

    begin_s: float
    end_s: float
    height: float


@dataclass(frozen=True, slots=True)
class OnOff:
    """A batch that recurs periodically.

    Attributes:
        period_s: Time from one beginning to the next.
        on_s: How long it lasts.
        height: Work per second while it lasts.
        first_s: When the first begins, seconds after the midnight (UTC) at or before the start.
    """

    period_s: float
    on_s: float
    height: float
    first_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which nothing was recorded, or nothing arrived.

    Attributes:
        at_s: When it begins, seconds after the midnight (UTC) at or before the start.
        lasts_s: How long it lasts.
        shows: `gap` leaves the rows out, `zero` records zeros.
    """

    at_s: float
    lasts_s: float
    shows: Literal["gap", "zero"] = "gap"


@dataclass(frozen=True, slots=True)
class Outages:
    """Outages at random times.

    Attributes:
        per_day: Expected number a day (Poisson).
        lasts_s: Mean duration (exponential).
        shows: As for a single outage.
        name: Name of the stream of draws.
    """

    per_day: float
    lasts_s: float
    shows: Literal["gap", "zero"] = "gap"
    name: str = "outages"


Part: TypeAlias = Level | Daily | Weekly | Trend | Crowd | Crowds | Ramp | OnOff | Outage | Outages

PARTS: dict[str, type[Part]] = {
    "level": Level,
    "daily": Daily,
    "weekly": Weekly,
    "trend": Trend,
    "crowd": Crowd,
    "crowds": Crowds,
    "ramp": Ramp,
    "on_off": OnOff,
    "outage": Outage,
    "outages": Outages,
}
"""Parts by their name in a recipe."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A description of the traffic to generate.

    Attributes:
        seed: Seed of all draws.
        start_s: Epoch seconds of the first interval.
        length_s: Length of the trace; the last interval may reach beyond it.
        interval_s: Length of an interval.
        kind: Counts, or a gauge of work per second.
        dispersion: Variance over mean of a count around its expectation: 1 is Poisson, more is a negative binomial
            (a Poisson count whose mean is itself gamma distributed).
        variation: Standard deviation over mean of a gauge around its expectation (gamma); 0 for none.
        parts: The parts, in any order.
        name: Name for people.
    """

    seed: int = 1
    start_s: float = DEFAULT_START_S
    length_s: float = DAY_S
    interval_s: float = 60.0
    kind: TraceKind = TraceKind.COUNT
    dispersion: float = 1.0
    variation: float = 0.0
    parts: tuple[Part, ...] = field(default_factory=tuple)
    name: str = ""


def generate(recipe: Recipe) -> Trace:
    """Generate the traffic of a recipe.

    Raises:
        TraceError: The recipe is impossible, or outages leave nothing of it.
    """
    stamps = stamps_of(checked(recipe))
    rate = expected_rate(recipe, stamps + recipe.interval_s / 2)
    if recipe.kind is TraceKind.COUNT:
        values = _by_hour(recipe, stamps, rate * recipe.interval_s, counts)
    else:
        values = _by_hour(recipe, stamps, rate, _levels)
    gap, zero = _outages(recipe, stamps)
    values[zero] = 0.0
    if gap.all():
        raise TraceError("No traffic can be generated: the outages cover all of it.")
    return Trace.build(
        stamps[~gap],
        values[~gap],
        kind=recipe.kind,
        name=recipe.name or f"generated-{recipe.seed}",
        interval_s=recipe.interval_s,
    )


def crowd_shape(since_s: Float, crowd: Crowd) -> Float:
    """Return the share of a crowd's height at these seconds after its beginning."""
    risen = np.clip(since_s / crowd.rise_s, 0.0, 1.0)
    falling_s = np.maximum(since_s - crowd.rise_s, 0.0)
    return (1 - np.cos(np.pi * risen)) / 2 * np.exp(-math.log(20.0) * falling_s / crowd.decay_s)


def stamps_of(recipe: Recipe) -> Float:
    """Return the epoch seconds at which the intervals of a recipe begin."""
    rows = math.ceil(recipe.length_s / recipe.interval_s - 1e-9)
    return recipe.start_s + recipe.interval_s * np.arange(rows, dtype=np.float64)


def expected_rate(recipe: Recipe, times_s: Float) -> Float:
    """Return work per second without noise and outages at these epoch seconds, never below 0."""
    since_s = times_s - _midnight(recipe)
    rate = np.zeros(len(times_s))
    for part in recipe.parts:
        match part:
            case Level():
                rate += part.work
            case Daily():
                phase = 2 * np.pi * (since_s - part.peak_at_s) / DAY_S
                rate += part.amplitude * (1 + np.cos(phase)) / 2
            case Crowd():
                rate += part.height * crowd_shape(since_s - part.at_s, part)
            case Crowds():
                for crowd in _drawn_crowds(recipe, part):
                    _add_crowd(rate, since_s, crowd)
            case Ramp():
                rate += part.height * np.clip((since_s - part.begin_s) / (part.end_s - part.begin_s), 0, 1)
            case OnOff():
                at = since_s - part.first_s
                rate += np.where((at >= 0) & (at % part.period_s < part.on_s), part.height, 0.0)
            case Weekly() | Trend() | Outage() | Outages():
                pass
    expected: Float = np.maximum(rate * _factor(recipe, times_s), 0.0)
    return expected


def _factor(recipe: Recipe, times_s: Float) -> Float:
    """Return the factor by which the sum of the adding parts is multiplied."""
    factor = np.ones(len(times_s))
    for part in recipe.parts:
        if isinstance(part, Weekly):
            day = np.floor((times_s - _MONDAY_S) / DAY_S) % 7
            factor *= np.where(day >= 5, part.weekend, 1.0)
        elif isinstance(part, Trend):
            factor *= np.maximum(1 + part.per_day * (times_s - recipe.start_s) / DAY_S, 0.0)
    return factor


def _add_crowd(rate: Float, since_s: Float, crowd: Crowd) -> None:
    """Add a crowd to the rates, in place."""
    begin, end = np.searchsorted(
        since_s, (crowd.at_s, crowd.at_s + crowd.rise_s + _FADED * crowd.decay_s)
    ).tolist()
    rate[begin:end] += crowd.height * crowd_shape(since_s[begin:end] - crowd.at_s, crowd)


def _midnight(recipe: Recipe) -> float:
    return math.floor(recipe.start_s / DAY_S) * DAY_S


# ── Draws ───────────────────────────────────────────────────────────────────────────────────────────────


def stream(seed: int, purpose: str, number: int) -> np.random.Generator:
    """Return a stream of draws for one purpose in one day or hour, independent of all other draws."""
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, np.uint64)
    counter = np.array([0, 0, 0, number % 2**64], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _by_hour(
    recipe: Recipe,
    stamps: Float,
    mean: Float,
    draw: Callable[[np.random.Generator, Float, Recipe], Float],
) -> Float:
    """Return values with noise around the mean; each hour has its own stream of draws."""
    hours = np.floor(stamps / HOUR_S)
    begins = np.flatnonzero(np.concatenate(([True], np.diff(hours) > 0)))
    values = np.empty(len(mean))
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(mean)], strict=True):
        generator = stream(recipe.seed, "noise", int(hours[begin]))
        values[begin:end] = draw(generator, mean[begin:end], recipe)
    return values


def counts(generator: np.random.Generator, mean: Float, recipe: Recipe) -> Float:
    """Draw counts around their mean, with the recipe's dispersion."""
    if recipe.dispersion > 1:
        # Var = E[G] + Var[G] = m + m (d - 1) = m d for G ~ gamma with mean m and scale d - 1.
        mean = generator.gamma(mean / (recipe.dispersion - 1), recipe.dispersion - 1)
    return generator.poisson(mean).astype(np.float64)


def _levels(generator: np.random.Generator, mean: Float, recipe: Recipe) -> Float:
    """Draw gauge values around their mean, with the recipe's variation."""
    if recipe.variation == 0:
        return mean
    shape = recipe.variation**-2
    return mean * generator.gamma(shape, 1 / shape, len(mean))


def _days(recipe: Recipe) -> Iterator[int]:
    """Return the days since the epoch on which a crowd or outage may begin that reaches into the trace."""
    first = math.floor(recipe.start_s / DAY_S)
    return iter(range(first - 7, math.ceil((recipe.start_s + recipe.length_s) / DAY_S)))


def _drawn_crowds(recipe: Recipe, part: Crowds) -> Iterator[Crowd]:
    midnight_s = _midnight(recipe)
    for day in _days(recipe):
        draws = stream(recipe.seed, f"crowds {part.name}", day)
        for _ in range(int(draws.poisson(part.per_day))):
            at_s = day * DAY_S + draws.uniform(0, DAY_S) - midnight_s
            yield Crowd(at_s, part.rise_s, part.height * draws.exponential(), part.decay_s)


def _outages(recipe: Recipe, stamps: Float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which intervals are gaps and which are zero; an interval that an outage touches belongs to it."""
    out = {"gap": np.zeros(len(stamps), np.bool_), "zero": np.zeros(len(stamps), np.bool_)}
    since_s = stamps - _midnight(recipe)
    for part in recipe.parts:
        if isinstance(part, Outage | Outages):
            for outage in [part] if isinstance(part, Outage) else _drawn_outages(recipe, part):
                touched = (since_s + recipe.interval_s > outage.at_s) & (
                    since_s < outage.at_s + outage.lasts_s
                )
                out[outage.shows] |= touched
    return out["gap"], out["zero"]


def _drawn_outages(recipe: Recipe, part: Outages) -> Iterator[Outage]:
    midnight_s = _midnight(recipe)
    for day in _days(recipe):
        draws = stream(recipe.seed, f"outages {part.name}", day)
        for _ in range(int(draws.poisson(part.per_day))):
            at_s = day * DAY_S + draws.uniform(0, DAY_S) - midnight_s
            yield Outage(at_s, part.lasts_s * draws.exponential(), part.shows)


# ── Checks ──────────────────────────────────────────────────────────────────────────────────────────────

_ABOVE_ZERO = {"rise_s", "decay_s", "period_s", "on_s", "lasts_s"}
_ANY_SIGN = {"trend.per_day", "ramp.height"}


def checked(recipe: Recipe) -> Recipe:
    """Return the recipe if it is possible.

    Raises:
        TraceError: It is impossible.
    """
    rules: list[tuple[bool, str]] = [
        (0 <= recipe.seed < 2**63, f"the seed must be 0 or more, not {recipe.seed}"),
        (math.isfinite(recipe.start_s), f"the start must be a time, not {recipe.start_s}"),
        (0 < recipe.length_s < math.inf, f"the length must be more than 0 s, not {recipe.length_s}"),
        (0 < recipe.interval_s < math.inf, f"the interval must be more than 0 s, not {recipe.interval_s}"),
        (
            1 <= recipe.dispersion < math.inf,
            f"the dispersion must be 1 (Poisson) or more, not {recipe.dispersion}",
        ),
        (0 <= recipe.variation < 10, f"the variation must be within 0 and 10, not {recipe.variation}"),
        (bool(recipe.parts), "there are no parts; give at least a level"),
    ]
    for holds, message in rules:
        if not holds:
            raise TraceError(f"No traffic can be generated: {message}.")
    if not 2 <= recipe.length_s / recipe.interval_s <= MAX_INTERVALS:
        raise TraceError(
            f"No traffic can be generated: {recipe.length_s:g} s in intervals of {recipe.interval_s:g} s are not 2 to "
            f"{MAX_INTERVALS:,}."
        )
    for part in recipe.parts:
        if wrong := wrong_value(part):
            raise TraceError(f"No traffic can be generated: {wrong[1]}.")
    return recipe


def wrong_value(part: Part) -> tuple[str, str] | None:
    """Return the field of a part that is impossible, and why; None if all are possible."""
    kind = next(name for name, of in PARTS.items() if type(part) is of)
    for one in fields(part):
        value = getattr(part, one.name)
        if isinstance(value, str):
            continue
        lowest = -math.inf if f"{kind}.{one.name}" in _ANY_SIGN else 0.0
        if not lowest <= value < math.inf:
            return one.name, f"{one.name} of {kind} must be 0 or more, not {value:g}"
        if one.name in _ABOVE_ZERO and value == 0:
            return one.name, f"{one.name} of {kind} must be more than 0"
    if isinstance(part, Ramp) and part.end_s <= part.begin_s:
        return "end_s", "a ramp must end after it begins"
    if isinstance(part, OnOff) and part.on_s > part.period_s:
        return "on_s", "a batch must not last longer than its period"
    if isinstance(part, Outage | Outages) and part.shows not in {"gap", "zero"}:
        return "shows", f"an outage shows `gap` or `zero`, not `{part.shows}`"
    if isinstance(part, Crowds | Outages) and part.per_day > 1000:
        return "per_day", f"at most 1000 a day can be drawn, not {part.per_day:g}"
    return None
