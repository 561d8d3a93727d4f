"""The axes of a sweep, as people write them: `reactive.headroom=10%..60%/6`, `guards.stabilisation=1m,5m`, `plant.start=20s`.

    PATH=VALUE,VALUE,...    these values
    PATH=LOW..HIGH/COUNT    so many values, evenly spaced, including both ends; `/6log` spaces them by equal factors
    PATH=LOW..HIGH          a range to draw from at random; `/log` draws evenly in the logarithm

Values are written as in the policy, with units. A field of the plant may be written without the unit in its name
(`plant.stop` is `plant.stop_s`), and its value with one.

Rules of this file: text in, axes out. The models decide whether a value is valid for its field (`variants`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from autoscaler.config.messages import field_at
from autoscaler.config.quantities import DURATION, PERCENT
from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.search.variants import PLANT, Axis, Base, Between, ends_of, keys_of

MOST_STEPS = 10_000
_COUNT = re.compile(r"(.*)/(\d*)(log)?")
_HOW = "write PATH=VALUE,VALUE or PATH=LOW..HIGH/COUNT, for example reactive.headroom=10%..60%/6"
_DIGITS = 6
_SWITCHES = {"true": True, "false": False}


def read_axis(text: str, base: Base, *, at_random: bool = False) -> Axis | Between:
    """Read the argument of one `--vary`.

    Args:
        text: The argument as written.
        base: The policy and plant to vary, which know the fields.
        at_random: Whether variants are drawn at random, so that a range needs no count.

    Raises:
        ConfigError: The text is malformed, or there is no such field.
    """
    path, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not path or not values:
        raise ConfigError(f"{text!r} does not say what to vary; {_HOW}")
    path = _full(path, base.plant)
    # Only the field is checked here, with any value; the value is checked when it is set.
    _require_field(path, base)
    if ".." not in values:
        return Axis(path, tuple(_value(path, each.strip()) for each in values.split(",")))
    return _range(text, path, values, at_random=at_random)


def _range(text: str, path: str, values: str, *, at_random: bool) -> Axis | Between:
    found = _COUNT.fullmatch(values)
    # The slash in `120/s` does not introduce a count.
    ends, count, logarithmic = (
        (found[1], found[2], found[3] is not None)
        if found and (found[2] or found[3])
        else (values, "", False)
    )
    low, _, high = (each.strip() for each in ends.partition(".."))
    if not low or not high:
        raise ConfigError(f"{text!r}: the range needs two ends; {_HOW}")
    between = Between(path, _value(path, low), _value(path, high), logarithmic)
    if not count:
        if not at_random:
            raise ConfigError(
                f"{text!r}: how many values? Write {path}={low}..{high}/5, or draw variants with --random"
            )
        return between
    if not 2 <= int(count) <= MOST_STEPS:
        raise ConfigError(f"{text!r}: a range is cut into 2 to {MOST_STEPS:,} values, not {count}")
    return Axis(path, _spaced(between, int(count)))


def _spaced(between: Between, count: int) -> tuple[object, ...]:
    """Return evenly spaced values, as written, without duplicates."""
    text, low, high = ends_of(between, apart=True)
    whole = text is None and isinstance(between.low, int) and isinstance(between.high, int)
    made: list[object] = []
    for step in range(count):
        part = step / (count - 1)
        number = low * (high / low) ** part if between.logarithmic else low + part * (high - low)
        number = min(max(float(f"{number:.{_DIGITS}g}"), low), high)
        made.append(text.write(number) if text else round(number) if whole else number)
    return tuple(dict.fromkeys(made))


def _value(path: str, text: str) -> object:
    """Return a value as a number if it is one, otherwise as text; quantities of a plant become plain numbers."""
    if not text:
        raise ConfigError(f"`{path}`: a value is missing between two commas")
    if text in _SWITCHES:
        return _SWITCHES[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    if path.split(".", 1)[0] == PLANT:
        for unit in (DURATION, PERCENT):
            try:
                return float(unit.read(text))
            except ValueError:
                continue
    return text


def _full(path: str, plant: PlantSettings) -> str:
    """Return a path with the unit suffixes that people leave out of a plant's field names, as in a policy."""
    first, *keys = path.split(".")
    if first != PLANT:
        return path
    here: Any = plant
    found = [PLANT]
    for key in keys:
        names = [each.name for each in fields(here)] if is_dataclass(here) else []
        name = key if key in names or f"{key}_s" not in names else f"{key}_s"
        found.append(name)
        here = getattr(here, name, None)
    return ".".join(found)


def _require_field(path: str, base: Base) -> None:
    """Raise the error of `variants` if there is no such field."""
    if path.split(".", 1)[0] == PLANT:
        here: Any = base.plant
        for key in path.split(".")[1:]:
            if not is_dataclass(here) or key not in [each.name for each in fields(here)]:
                break
            here = getattr(here, key)
        else:
            if path != PLANT:
                return
    elif field_at(keys_of(path)) is not None:
        return
    base.variant({path: 0})


def current_values(base: Base, paths: Sequence[str]) -> dict[str, object]:
    """Return what the base has at these paths, as written; `off` if a section is off, None if nothing is set."""
    from autoscaler.config.rendering import effective_data

    data = effective_data(base.policy)
    return {path: _at(base.plant if path.split(".")[0] == PLANT else data, path) for path in paths}


def _at(here: Any, path: str) -> object:
    keys = keys_of(path)
    for key in keys[1:] if keys[0] == PLANT else keys:
        if here in (None, "off"):
            return "off"
        if isinstance(here, list):
            here = here[int(key)] if int(key) < len(here) else None
        elif isinstance(here, dict):
            here = here.get(key)
        else:
            here = getattr(here, str(key), None)
    if is_dataclass(here) and hasattr(here, "mean_s"):
        return here.mean_s
    return here
