"""Turns pydantic's findings into sentences with a position and advice.

Rules of this file: wording only; the models decide what is valid. Every message names the key by its full path, so that it
can be understood without opening the file.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autoscaler.config.documents import MOST_PROBLEMS, Document, Mark, Problem, YamlPath, with_rest
from autoscaler.config.policy import Policy
from autoscaler.config.quantities import Quantity, Text, shown


def validation_problems(
    error: ValidationError, document: Document, root: type[BaseModel] = Policy, *, whole: bool = True
) -> list[Problem]:
    """Return one problem per finding, placed in the (merged) document.

    An unknown key that is probably a misspelt required key is reported as one problem, at the misspelt key. Beyond `MOST_PROBLEMS`
    unknown keys, and as many other findings, the rest is only counted.

    Args:
        error: The findings of pydantic.
        document: The document that was validated.
        root: Model of the document's top level.
        whole: Whether required keys must be there; in a defaults file they need not.
    """
    findings = error.errors(include_url=False)
    missing = {tuple(found["loc"]) for found in findings if _is_missing(found)} if whole else set()
    problems, told = [], set()
    unknown = [found for found in findings if found["type"] == "extra_forbidden"]
    for found in unknown[:MOST_PROBLEMS]:
        joined = _in_place_of(tuple(found["loc"]), missing, root)
        told |= joined
        problems.append(_problem(found, document, root, joined))
    others = [
        found
        for found in findings
        if found["type"] != "extra_forbidden"
        and not (_is_missing(found) and (not whole or tuple(found["loc"]) in told))
    ]
    problems += [_problem(found, document, root) for found in others[:MOST_PROBLEMS]]
    return with_rest(problems, len(unknown) + len(others) - len(problems))


def _is_missing(found: ErrorDetails) -> bool:
    return found["type"] == "missing"


def _in_place_of(path: YamlPath, missing: set[YamlPath], root: type[BaseModel]) -> set[YamlPath]:
    """Return the missing required keys that an unknown key was probably meant to be, or to contain."""
    meant = _nearest(path, root)
    return {key for key in missing if meant is not None and key[: len(path)] == (*path[:-1], meant)}


def dotted(path: YamlPath) -> str:
    """Return a path as people write it: `schedule[0].days`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _problem(
    found: ErrorDetails, document: Document, root: type[BaseModel], joined: set[YamlPath] | None = None
) -> Problem:
    path = tuple(found["loc"])
    message, advice = _words(found, path, root)
    if joined:
        advice = advice.removesuffix("?") + _without(path, joined)
    mark = document.mark(path, of_key=found["type"] == "extra_forbidden")
    if _is_missing(found) and mark.file != document.file:
        mark = Mark(document.file)  # a missing key belongs in the fleet's file, not in the defaults
    return Problem(mark, message, advice)


def _without(path: YamlPath, missing: set[YamlPath]) -> str:
    """Return the end of a suggestion for a key that is required, or for a section with required keys."""
    inner = sorted(f"`{dotted(key[len(path) :])}`" for key in missing if len(key) > len(path))
    if not inner:
        return ", which is missing?"
    return f", where {' and '.join(inner)} {'is' if len(inner) == 1 else 'are'} missing?"


_TEMPLATES = {
    "bool_type": ("{name}: {raw} is neither true nor false", "write `true` or `false`"),
    "float_type": ("{name}: {raw} is not a number", "write a plain number, for example `1.5`"),
    "finite_number": ("{name}: {raw} is not a number", "write a plain number, for example `1.5`"),
    "int_type": ("{name}: {raw} is not a whole number", "write a count without a unit, for example `5`"),
    "string_type": ("{name}: {raw} is not a text", "put it in quotes"),
    "model_type": ("{name} is {raw}, not a section", "put its keys below it, indented"),
    "tuple_type": ("{name} is {raw}, not a list", "start each entry with a dash"),
    "greater_than_equal": ("{name}: {raw} is too small", "it must be at least {ge}"),
    "greater_than": ("{name}: {raw} is too small", "it must be above {gt}"),
    "less_than_equal": ("{name}: {raw} is too large", "it must be at most {le}"),
    "refused": ("{name}: {message}", "{advice}"),
    "too_short": ("{name} has {actual_length} entries", "at least {min_length} is needed"),
    "string_too_long": ("{name} is too long", "at most {max_length} characters are allowed"),
    "too_long": ("{name} has {actual_length} entries", "at most {max_length} are allowed"),
    "string_pattern_mismatch": (
        "{name}: {raw} is not a valid name",
        "use up to 63 lower-case letters, digits and dashes",
    ),
}
"""Message and advice for each of pydantic's error types."""
_EMPTY = {kind: _TEMPLATES[kind][1] for kind in ("model_type", "tuple_type")}
"""Advice for a key without a value."""


def _words(found: ErrorDetails, path: YamlPath, root: type[BaseModel]) -> tuple[str, str]:
    name, raw = f"`{dotted(path)}`", shown(found["input"])
    match found["type"]:
        case "extra_forbidden":
            return f"unknown key {name}", suggestion(path, root)
        case "missing":
            return f"{name} is missing", _wanted(path, root)
        case "literal_error":
            close = difflib.get_close_matches(str(found["input"]), _choices(path, root), 1)
            near = f"did you mean `{close[0]}`? " if close else ""
            return (
                f"{name}: {raw} is not one of the choices",
                f"{near}write {' or '.join(_choices(path, root))}",
            )
    if found["input"] is None and found["type"] in {"string_type", "tuple_type", "model_type"}:
        return f"{name} is empty", _EMPTY.get(found["type"]) or _wanted(path, root)
    fault, advice = _TEMPLATES.get(found["type"], ("{name}: {msg}", ""))
    values = {**found.get("ctx", {}), "name": name, "raw": raw, "msg": found["msg"]}
    return fault.format(**values), advice.format(**values)


def suggestion(path: YamlPath, root: type[BaseModel] = Policy, *, whole: bool = False) -> str:
    """Return what was probably meant by an unknown key: the nearest key of its section, or the section that has it.

    Args:
        path: The unknown key.
        root: Model of the document's top level.
        whole: Name the nearest key by its whole path, for a caller that does not show the section.
    """
    close = _nearest(path, root)
    if close is not None:
        return f"did you mean `{dotted((*path[:-1], close)) if whole else close}`?"
    word = str(path[-1])
    elsewhere = [dotted(found) for found in _all_paths(root, ()) if found[-1] == word]
    if elsewhere:
        return f"it belongs at {' or '.join(f'`{place}`' for place in elsewhere[:3])}"
    return f"valid keys here are {', '.join(_keys_at(path[:-1], root))}"


def _nearest(path: YamlPath, root: type[BaseModel]) -> str | None:
    """Return the key of the same section that is closest to an unknown one; None if none is close."""
    close = difflib.get_close_matches(str(path[-1]), _keys_at(path[:-1], root), 1, cutoff=0.6)
    return close[0] if close else None


def _keys_at(section: YamlPath, root: type[BaseModel]) -> list[str]:
    model = model_at(section, root)
    return list(_keys(model)) if model else []


def _wanted(path: YamlPath, root: type[BaseModel]) -> str:
    info = field_at(path, root)
    if info is None:
        return "add it"
    text = next(
        (
            mark.text if isinstance(mark, Quantity) else mark
            for mark in info.metadata
            if isinstance(mark, (Quantity, Text))
        ),
        None,
    )
    example = f", for example `{path[-1]}: {text.example}`" if text else ""
    choices = _choices(path, root)
    options = f" ({' or '.join(choices)})" if choices else ""
    return f"add it{example}{options}: {(info.description or '').rstrip('.')}"


def _choices(path: YamlPath, root: type[BaseModel]) -> list[str]:
    info = field_at(path, root)
    return [str(choice) for choice in _literals(info.annotation)] if info else []


def _literals(annotation: object) -> Iterator[object]:
    if typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _literals(part)


# ── Walking the models ──────────────────────────────────────────────────────────────────────────────────


def model_at(path: YamlPath, root: type[BaseModel] = Policy) -> type[BaseModel] | None:
    """Return the model of the section at a path; None if there is none."""
    if not path:
        return root
    if isinstance(path[-1], int):
        return model_at(path[:-1], root)
    info = field_at(path, root)
    return _model_in(info.annotation) if info else None


def field_at(path: YamlPath, root: type[BaseModel] = Policy) -> FieldInfo | None:
    """Return the declaration of the key at a path; None if there is none."""
    model = model_at(path[:-1], root) if path else None
    if model is None:
        return None
    return next((info for info in model.model_fields.values() if info.alias == path[-1]), None)


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield info.alias or name


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)


def _all_paths(model: type[BaseModel], above: YamlPath) -> Iterator[YamlPath]:
    for name, info in model.model_fields.items():
        here = (*above, info.alias or name)
        yield here
        inner = _model_in(info.annotation)
        if inner:
            yield from _all_paths(inner, here)
