"""Recipes for generated traffic as YAML: the building blocks of `parts`, quantities with units.

    seed: 7
    start: 2026-03-02T00:00:00Z
    length: 14d
    interval: 1m
    dispersion: 20
    parts:
      - level: {work: 600}
      - daily: {amplitude: 1500, peak_at: 13h}
      - crowds: {per_day: 0.5, height: 3000}

Rules of this file: a key is the attribute's name without its unit. All problems of a recipe are reported together, each with
file, line, column and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from autoscaler.config.documents import Document, Problem, YamlPath, read_document
from autoscaler.config.quantities import DURATION, MOMENT, PERCENT, shown
from autoscaler.errors import TraceError
from autoscaler.simulator.traffic.parts import PARTS, Part, Recipe, wrong_value
from autoscaler.traces.trace import TraceKind


def _number(raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    raise ValueError("write a number, for example 600")


def _whole(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise ValueError("write a whole number, for example 7")


def _text(raw: object) -> str:
    if isinstance(raw, str):
        return raw
    raise ValueError("write a word")


def _kind(raw: object) -> TraceKind:
    if raw in set(TraceKind):
        return TraceKind(str(raw))
    raise ValueError("write count or gauge")


def _moment_s(raw: object) -> float:
    return float(MOMENT.read(raw).timestamp())


Reader = Callable[[object], Any]
_RECIPE: dict[str, tuple[str, Reader]] = {
    "seed": ("seed", _whole),
    "start": ("start_s", _moment_s),
    "length": ("length_s", DURATION.read),
    "interval": ("interval_s", DURATION.read),
    "kind": ("kind", _kind),
    "dispersion": ("dispersion", _number),
    "variation": ("variation", PERCENT.read),
    "name": ("name", _text),
}
_SHARES = {"weekly.weekend", "trend.per_day"}


def read_recipe(path: Path) -> Recipe:
    """Read the recipe in a file.

    Raises:
        TraceError: The recipe has problems; the message lists all of them with their lines.
    """
    return recipe_of(read_document(path))


def recipe_of(document: Document) -> Recipe:
    """Read the recipe in a document.

    Raises:
        TraceError: The recipe has problems; the message lists all of them with their lines.
    """
    problems = list(document.problems)
    if not problems:
        recipe = _recipe(document, problems)
    if problems:
        raise TraceError("\n".join(map(str, problems)))
    return recipe


def _recipe(document: Document, problems: list[Problem]) -> Recipe:
    found: dict[str, Any] = {}
    for key, raw in document.data.items():
        if key == "parts":
            continue
        if key not in _RECIPE:
            problems.append(_unknown(document, (key,), [*_RECIPE, "parts"]))
            continue
        name, read = _RECIPE[key]
        _put(found, name, read, raw, document, (key,), problems)
    raw_parts = document.data.get("parts")
    if not isinstance(raw_parts, list) or not raw_parts:
        problems.append(
            Problem(
                document.mark(("parts",)),
                "`parts` is missing or not a list",
                f"list some of {', '.join(PARTS)}",
            )
        )
        return Recipe()
    parts = [_part(document, ("parts", at), raw, problems) for at, raw in enumerate(raw_parts)]
    return Recipe(**found, parts=tuple(part for part in parts if part is not None))


def _part(document: Document, path: YamlPath, raw: object, problems: list[Problem]) -> Part | None:
    if not isinstance(raw, dict) or len(raw) != 1:
        problems.append(
            Problem(
                document.mark(path), f"{shown(raw)} is not a part", "write one such as `- level: {work: 600}`"
            )
        )
        return None
    ((kind, given),) = raw.items()
    if kind not in PARTS:
        problems.append(_unknown(document, (*path, kind), list(PARTS)))
        return None
    if not isinstance(given, dict):
        problems.append(
            Problem(document.mark((*path, kind)), f"`{kind}` is not a section", "put its keys in braces")
        )
        return None
    names = {one.name.removesuffix("_s"): one for one in fields(PARTS[kind])}
    before, found = len(problems), dict[str, Any]()
    for key, value in given.items():
        if key not in names:
            problems.append(_unknown(document, (*path, kind, key), list(names)))
            continue
        name = names[key].name
        _put(found, name, _reader(kind, name), value, document, (*path, kind, key), problems)
    missing = [key for key, one in names.items() if one.default is MISSING and key not in given]
    problems += [
        Problem(document.mark((*path, kind), of_key=True), f"`{kind}` needs `{key}`", "add it")
        for key in missing
    ]
    if len(problems) > before:
        return None
    part: Part = PARTS[kind](**found)
    if wrong := wrong_value(part):
        problems.append(Problem(document.mark((*path, kind, wrong[0].removesuffix("_s"))), wrong[1]))
        return None
    return part


def _reader(kind: str, name: str) -> Reader:
    if name in {"name", "shows"}:
        return _text
    if f"{kind}.{name}" in _SHARES:
        return _share
    return DURATION.read if name.endswith("_s") else _number


def _share(raw: object) -> float:
    if isinstance(raw, str) and raw.startswith("-"):
        return -float(PERCENT.read(raw[1:]))
    return float(PERCENT.read(raw))


def _put(
    found: dict[str, Any],
    name: str,
    read: Reader,
    raw: object,
    document: Document,
    path: YamlPath,
    problems: list[Problem],
) -> None:
    try:
        found[name] = read(raw)
    except ValueError as error:
        problems.append(Problem(document.mark(path), f"{shown(raw)} is not a valid `{path[-1]}`", str(error)))


def _unknown(document: Document, path: YamlPath, valid: list[str]) -> Problem:
    close = difflib.get_close_matches(str(path[-1]), valid, 1, cutoff=0.6)
    advice = f"did you mean `{close[0]}`?" if close else f"valid here are {', '.join(valid)}"
    return Problem(document.mark(path, of_key=True), f"unknown key `{path[-1]}`", advice)
