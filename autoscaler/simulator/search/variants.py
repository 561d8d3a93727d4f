"""Variants: one policy and one plant with some fields changed, on a grid or at random.

A field is named by its dotted path as in the YAML (`reactive.headroom`, `guards.rate_in.vms`). A field of the plant has
`plant.` before its path (`plant.start.mean_s`, `plant.vms`). Values are written as in the policy, with units; those of a
plant are plain numbers. Every variant is validated like a policy file before anything runs, so a wrong field or value gives
a message with the nearest right one.

Rules of this file: values in, values out. Random draws are addressed by seed and path, so a further axis does not shift
those of the others.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from autoscaler.config.checks import check_policy
from autoscaler.config.documents import Document, Severity, YamlPath
from autoscaler.config.messages import field_at, suggestion, validation_problems
from autoscaler.config.policy import Policy
from autoscaler.config.quantities import Quantity, Text
from autoscaler.config.rendering import effective_data
from autoscaler.core.types import Float
from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.plant_settings import Budget, Duration, PlantSettings, Shortage

PLANT = "plant"
_GIVEN = ("prices", "vm.capacity", "vm.weights")
"""Fields of a policy that state facts: what VMs cost and can do."""
MOST_VARIANTS = 1_000_000
_DIGITS = 6
_EMPTY_SECTIONS = (None, "off")

Settings = TypeVar("Settings", PlantSettings, Duration, Budget)


def is_given(path: str) -> bool:
    """Whether a field states a fact about the plant, prices or what a VM can do.

    It may be varied to see its effect, but it cannot be chosen.
    """
    return any(path == given or path.startswith(f"{given}.") for given in (PLANT, *_GIVEN))


@dataclass(frozen=True, slots=True)
class Axis:
    """Values that a field takes, as written in the policy.

    Attributes:
        path: The field, dotted.
        values: At least one.
    """

    path: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A range that a field is drawn from, including both ends, as written in the policy.

    Attributes:
        path: A numeric field, dotted.
        low, high: The ends.
        logarithmic: Draw evenly in the logarithm; both ends must be above 0.
    """

    path: str
    low: object
    high: object
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of a sweep.

    Attributes:
        values: The changed values by path, as written.
        policy, plant: The policy and the plant with those values.
    """

    values: Mapping[str, object]
    policy: Policy
    plant: PlantSettings


@dataclass(frozen=True, slots=True)
class Base:
    """The policy and the plant that are varied."""

    policy: Policy
    plant: PlantSettings
    tick_s: float

    def variant(self, values: Mapping[str, object]) -> Variant:
        """Return the base with these fields changed.

        Raises:
            ConfigError: A path names no field, or a value is not valid for it, alone or together with the others.
        """
        data = effective_data(self.policy)
        plant = self.plant
        of_policy = False
        for path, value in values.items():
            keys = keys_of(path)
            if keys[0] == PLANT:
                plant = _with_plant_field(plant, keys[1:], value, path)
            else:
                of_policy = True
                _set(data, keys, value, path)
        policy = _validated(data, self.tick_s, values) if of_policy else self.policy
        return Variant(dict(values), policy, plant)


def grid(base: Base, axes: Sequence[Axis]) -> Iterator[Variant]:
    """Yield the cartesian product of the axes; the last axis varies fastest.

    Raises:
        ConfigError: An axis has no values, a path is given twice, there are too many variants, or a variant is invalid.
    """
    _distinct([axis.path for axis in axes])
    for axis in axes:
        if not axis.values:
            raise ConfigError(f"`{axis.path}` has no values to take; give at least one")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_VARIANTS:
        raise ConfigError(
            f"the product of the axes is {count:,} variants, more than {MOST_VARIANTS:,}; take fewer values, or draw "
            "variants at random"
        )
    for values in product(*(axis.values for axis in axes)):
        yield base.variant({axis.path: value for axis, value in zip(axes, values, strict=True)})


def sampled(base: Base, ranges: Sequence[Between | Axis], count: int, seed: int) -> Iterator[Variant]:
    """Yield `count` variants with every field drawn from its range or values, each field with a random stream of its own.

    Raises:
        ConfigError: A range is empty or its field is not numeric, or a variant is invalid.
    """
    _distinct([each.path for each in ranges])
    if not 1 <= count <= MOST_VARIANTS:
        raise ConfigError(f"between 1 and {MOST_VARIANTS:,} variants can be drawn, not {count}")
    columns = {
        each.path: _drawn(each, Luck(seed, each.path).uniforms(Purpose.VARIANT, 0, count)) for each in ranges
    }
    for number in range(count):
        yield base.variant({path: column[number] for path, column in columns.items()})


def _distinct(paths: Sequence[str]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"`{path}` is given twice; give each field once")


def keys_of(path: str) -> YamlPath:
    """Return a path as the keys of a document; numbers are places in a list."""
    return tuple(int(key) if key.isdecimal() else key for key in path.split("."))


# ── policy fields ───────────────────────────────────────────────────────────────────────────────────────


def _set(data: dict[str, Any], keys: YamlPath, value: object, path: str) -> None:
    """Set a value at a path; a section that is off is switched on."""
    if field_at(keys) is None:
        raise ConfigError(f"`{path}` is not a field of a policy; {_nearest(keys)}")
    here: Any = data
    for at, key in enumerate(keys[:-1]):
        inner = _inner(here, key, keys[: at + 1])
        if inner in _EMPTY_SECTIONS:
            inner = here[key] = {}
        here = inner
    if isinstance(here, list):
        _inner(here, keys[-1], keys)
    here[keys[-1]] = value


def _inner(here: Any, key: str | int, keys: YamlPath) -> Any:
    if isinstance(here, list):
        if not isinstance(key, int) or key >= len(here):
            where = ".".join(map(str, keys))
            raise ConfigError(f"`{where}`: the policy has {len(here)} entries there, counted from 0")
        return here[key]
    return here.get(key)


def _nearest(keys: YamlPath) -> str:
    """Return a hint with the nearest right name for the first wrong key."""
    wrong = next(at for at in range(1, len(keys) + 1) if field_at(keys[:at]) is None)
    close = difflib.get_close_matches(str(keys[0]), [PLANT], 1)
    if wrong == 1 and close:
        return "did you mean `plant`?"
    return suggestion(keys[:wrong], whole=True)


def _validated(data: dict[str, Any], tick_s: float, values: Mapping[str, object]) -> Policy:
    changed = ", ".join(f"{path} = {value}" for path, value in values.items())
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        problems = validation_problems(error, Document(Path("variant"), data))
        words = ". ".join(
            f"{each.message}; {each.advice}" if each.advice else each.message for each in problems
        )
        raise ConfigError(f"a variant is wrong ({changed}): {words}") from None
    wrong = [each for each in check_policy(policy, tick_s) if each.severity is Severity.ERROR]
    if wrong:
        words = ". ".join(f"{each.message}; {each.advice}" for each in wrong)
        raise ConfigError(f"a variant is wrong ({changed}): {words}")
    return policy


# ── plant fields ────────────────────────────────────────────────────────────────────────────────────────


def _with_plant_field(plant: PlantSettings, keys: YamlPath, value: object, path: str) -> PlantSettings:
    try:
        return _replaced(plant, keys, value, path)
    except ConfigError as error:
        if path in str(error):
            raise
        raise ConfigError(f"`{path}`: {error}") from None
    except TypeError:
        raise ConfigError(
            f"`{path}`: {value!r} is not a number; a plant's values are plain numbers"
        ) from None


def _replaced(settings: Settings, keys: YamlPath, value: object, path: str) -> Settings:
    names = [each.name for each in fields(settings)]
    if not keys or keys[0] not in names:
        word = str(keys[0]) if keys else ""
        close = difflib.get_close_matches(word, names, 1)
        section = path.removesuffix(".".join(map(str, keys)))
        advice = f"did you mean `{section}{close[0]}`?" if close else f"its fields are {', '.join(names)}"
        raise ConfigError(f"`{path}` is not a field of the plant; {advice}")
    name, old = str(keys[0]), getattr(settings, str(keys[0]))
    if len(keys) > 1:
        if not is_dataclass(old):
            raise ConfigError(f"`{path}`: `{name}` is {old!r} and has no fields; give it as a whole first")
        new: object = _replaced(old, keys[1:], value, path)  # type: ignore[type-var]
    else:
        new = _whole(name, old, value)
    changes: dict[str, Any] = {name: new}
    return replace(settings, **changes)


def _whole(name: str, old: object, value: object) -> object:
    if isinstance(old, Duration) and isinstance(value, (int, float)):
        return Duration(float(value))
    if isinstance(old, Shortage):
        if value not in list(Shortage):
            raise ConfigError(f"{name} is one of {', '.join(Shortage)}, not {value!r}")
        return Shortage(str(value))
    if isinstance(value, bool) or (isinstance(value, str) and not isinstance(old, str)):
        raise TypeError(name)
    if isinstance(old, int) and isinstance(value, float):
        if value != int(value):
            raise ConfigError(f"{name} is a number of VMs, not {value:g}")
        return int(value)
    return value


# ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────


def _drawn(between: Between | Axis, uniforms: Float) -> list[object]:
    """Return drawn values as written, one per uniform draw."""
    if isinstance(between, Axis):
        if not between.values:
            raise ConfigError(f"`{between.path}` has no values to take; give at least one")
        return [between.values[int(uniform * len(between.values))] for uniform in uniforms.tolist()]
    text, low, high = ends_of(between)
    whole = (
        text is None
        and float(low).is_integer()
        and isinstance(between.low, int)
        and isinstance(between.high, int)
    )
    drawn = []
    for uniform in uniforms.tolist():
        if whole and not between.logarithmic:
            number: float = math.floor(low + uniform * (high + 1 - low))
        elif between.logarithmic:
            number = low * (high / low) ** uniform
        else:
            number = low + uniform * (high - low)
        # Rounded to few digits, so that a person can write the value down, but still within the range.
        number = min(max(float(f"{number:.{_DIGITS}g}"), low), high)
        drawn.append(text.write(number) if text else round(number) if whole else number)
    return drawn


def ends_of(between: Between, *, apart: bool = False) -> tuple[Text | None, float, float]:
    """Return how a field is written (None for plain numbers), and the ends of its range as numbers.

    With `apart`, the ends must differ.

    Raises:
        ConfigError: There is no such field, or no such range of it.
    """
    keys = keys_of(between.path)
    info = None if keys[0] == PLANT else field_at(keys)
    if keys[0] != PLANT and info is None:
        raise ConfigError(f"`{between.path}` is not a field of a policy; {_nearest(keys)}")
    text = written_as(info) if info else None
    low, high = (_number(text, end, between.path) for end in (between.low, between.high))
    if low > high or (apart and low == high):
        raise ConfigError(
            f"`{between.path}`: the range ends at {between.high} before it begins at {between.low}"
        )
    if between.logarithmic and low <= 0:
        raise ConfigError(f"`{between.path}`: a logarithmic range begins above 0, not at {between.low}")
    return text, low, high


def written_as(info: FieldInfo) -> Text | None:
    """Return how a field's quantity is written, even if the field is optional; None for plain numbers."""
    parts = (*info.metadata, *(mark for part in get_args(info.annotation) for mark in get_args(part)[1:]))
    return next((mark.text for mark in parts if isinstance(mark, Quantity)), None)


def _number(text: Text | None, raw: Any, path: str) -> float:
    try:
        if text is None and (isinstance(raw, (bool, str)) or raw is None):
            raise ValueError("write plain numbers")  # noqa: TRY301 - reported like the reader's own errors
        number = float(text.read(raw) if text else raw)
        if not math.isfinite(number):
            raise ValueError("write finite numbers")  # noqa: TRY301 - as above
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`{path}`: a range needs numbers, not {raw!r}; {error}") from None
    return number
