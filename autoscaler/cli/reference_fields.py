"""Policy and settings models as table rows: path, form, range, default, sentence.

Rules of this file: it reads the models' own annotations (marks of `config.quantities`, pydantic constraints), has no special
case for any field, and prints nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from autoscaler.config.policy import Policy
from autoscaler.config.quantities import Quantity, Text
from autoscaler.config.section import Off, Section, yaml_key
from autoscaler.settings import Settings

REQUIRED = "*required*"
NOT_SET = "*not set*"
INSTALLED = {
    "policies": Path("/etc/autoscaler/policies"),
    "state_dir": Path("/var/lib/autoscaler"),
    "control_socket": Path("/run/autoscaler/control.sock"),
    "log_format": "json",
}
"""Values of the installed settings file that differ from the defaults."""

_FORMS = {
    bool: "`true` or `false`",
    int: "a number",
    float: "a number",
    str: "text",
    Path: "a path",
    SecretStr: "text",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One field. `default` is Markdown code, or `*required*` or `*not set*`."""

    path: str
    form: str
    range: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class SectionRows:
    """A section of a policy with its own fields; the path of the file itself is empty."""

    path: str
    meaning: str
    rows: tuple[Row, ...]


def policy_sections() -> list[SectionRows]:
    """Return every section of a policy: the file first, and each section before its subsections."""
    return list(_sections(Policy, "", None))


def _sections(model: type[Section], path: str, filled: Section | None) -> Iterator[SectionRows]:
    """Yield a section and its subsections. `filled` is the parent's default for this section; its values override field defaults."""
    rows, inner = [], []
    for name, field in model.model_fields.items():
        full = f"{path}.{field.alias or yaml_key(name)}".lstrip(".")
        default = getattr(filled, name) if filled is not None else field.get_default()
        types, marks = _flat(field)
        section = next((t for t in types if isinstance(t, type) and issubclass(t, Section)), None)
        rows.append(_row(full, field, types, marks, default, section))
        if section is not None:
            inner_path = f"{full}[]" if tuple in types else full
            inner.append((section, inner_path, default if isinstance(default, Section) else None))
    yield SectionRows(path, " ".join((model.__doc__ or "").split()), tuple(rows))
    for part in inner:
        yield from _sections(*part)


def setting_rows() -> list[Row]:
    """Return every setting, in the order of declaration."""
    rows = []
    for name, field in Settings.model_fields.items():
        types, marks = _flat(field)
        rows.append(_row(name, field, types, marks, field.get_default(), None))
    return rows


def settings_toml(command: str) -> str:
    """Return the annotated settings file with every setting. Defaults are commented out; values that an installation needs are not."""
    lines = [
        "# Settings of the daemon. A line that is commented out shows the default. The environment",
        "# (AUTOSCALER_TICK_S=20) is stronger than this file; what a fleet does is in its policy.",
        f"# Written from the code by `{command}`; the installed copy is yours to edit.",
    ]
    for row, (name, field) in zip(setting_rows(), Settings.model_fields.items(), strict=True):
        default = field.get_default()
        kind = next((t for t in _flat(field)[0] if get_origin(t) is Literal), None)
        allowed = row.range or ", ".join(get_args(kind))
        lines += ["", f"# {row.meaning}{f' ({allowed})' if allowed else ''}"]
        if name in INSTALLED:
            lines += [f"# Default: {_toml(default)}.", f"{name} = {_toml(INSTALLED[name])}"]
        elif default is None:
            lines.append(f'# {name} = ""    # not set')
        else:
            lines.append(f"# {name} = {_toml(default)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a value as TOML, whose strings, numbers and booleans are written as in JSON."""
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _row(path: str, field: FieldInfo, types: list[Any], marks: list[Any], default: Any, section: Any) -> Row:
    return Row(
        path=path,
        form=_form(types, marks, section),
        range=_range(marks),
        default=_default(field, marks, default, section),
        meaning=" ".join((field.description or "").split()),
    )


def _flat(field: FieldInfo) -> tuple[list[Any], list[Any]]:
    """Return all types and marks of an annotation, at any depth."""
    types: list[Any] = []
    marks: list[Any] = list(field.metadata)

    def walk(annotation: Any) -> None:
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *found = get_args(annotation)
            for mark in found:
                marks.extend(mark.metadata if isinstance(mark, FieldInfo) else [mark])
            walk(inner)
        elif origin is Union or origin is UnionType:
            for part in get_args(annotation):
                walk(part)
        elif origin is dict:
            types.append(dict)
        elif origin is tuple:
            types.append(tuple)
            walk(get_args(annotation)[0])
        else:
            types.append(annotation)

    walk(field.annotation)
    return types, marks


def _text(marks: list[Any]) -> Text | None:
    found = (mark.text if isinstance(mark, Quantity) else mark for mark in marks)
    return next((text for text in found if isinstance(text, Text)), None)


def _form(types: list[Any], marks: list[Any], section: Any) -> str:
    text = _text(marks)
    if text is not None:
        return f"{text.noun}: `{text.example}`"
    if section is not None:
        return "a list of sections" if tuple in types else "a section"
    words = []
    for kind in types:
        if get_origin(kind) is Literal:
            words.append(", ".join(f"`{value}`" for value in get_args(kind)))
        elif kind in _FORMS:
            words.append(_FORMS[kind])
    return " or ".join(words)


def _range(marks: list[Any]) -> str:
    quantity = next((mark for mark in marks if isinstance(mark, Quantity)), None)
    if quantity is not None:
        return quantity.range
    low = high = ""
    for mark in marks:
        if isinstance(mark, Ge):
            low = f"from {mark.ge:.12g}"
        elif isinstance(mark, Gt):
            low = f"above {mark.gt:.12g}"
        elif isinstance(mark, Le):
            high = f"to {mark.le:.12g}"
        elif isinstance(mark, Lt):
            high = f"below {mark.lt:.12g}"
    return " ".join(filter(None, (low, high)))


def _default(field: FieldInfo, marks: list[Any], default: Any, section: Any) -> str:
    if default is PydanticUndefined:
        return REQUIRED
    if default is None:
        return "off" if Off in marks else NOT_SET
    if default == ():
        return "[]"
    if default == {}:
        return "{}"
    if section is not None:
        return "{}" if field.default is not PydanticUndefined else REQUIRED
    text = _text(marks)
    written = text.write(default) if text is not None else default
    if isinstance(written, bool):
        return str(written).lower()
    return f"{written:.12g}" if isinstance(written, float) else str(written) or '""'
