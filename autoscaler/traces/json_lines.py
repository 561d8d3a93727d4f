"""Reads JSON lines, as in structured logs: one object per line, with its fields as columns.

A nested field is named by its path, such as `http.time`.

Rules of this file: a line that is not an object, or that lacks a requested field, is refused and counted. The caller says
how many may be (`Layout.max_refused`).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces import numerals
from autoscaler.traces.blocks import Progress, beginning, read_blocks
from autoscaler.traces.stamps import StampReader
from autoscaler.traces.trace import Float, RowError

if TYPE_CHECKING:
    from autoscaler.traces.tables import Choose, Layout, Table, Wanted

LOOKED_AT = 200
"""Number of lines from which the names of fields are taken."""
_DEEPEST = 4
_SHOWN = 80
_SETTLED_AT = 65_536
"""Number of rows held as text before they are converted to numbers, which take a tenth of the memory."""


def is_json_lines(path: Path) -> bool:
    """Return whether a file's first line is a JSON object."""
    begin = beginning(path).lstrip()
    if not begin.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(begin.split(b"\n", 1)[0]), dict)
    except ValueError:
        return False


def field_names(path: Path) -> list[str]:
    """Return the names of the fields in the first lines."""
    with closing(_lines(path, None)) as lines:
        return _names(islice(lines, LOOKED_AT))


def read_json_lines(path: Path, choose: Choose, layout: Layout, progress: Progress | None = None) -> Table:
    """Read the fields that `choose` names.

    Raises:
        TraceError: Too many lines cannot be used, or a value does not have the form of its column.
    """
    with closing(_lines(path, None)) as lines:
        names = _names(lines) if layout.every_line else None
    with closing(_lines(path, progress)) as lines:
        first = list(islice(lines, LOOKED_AT))
        try:
            wanted = choose(_names(iter(first)) if names is None else names)
        except TraceError as error:
            raise TraceError(f"{path}:1: {error}") from None
        taken = _Taken(
            path, [_Column(column, StampReader(layout.times), layout.decimal) for column in wanted]
        )
        for line in chain(first, lines):
            taken.take(line)
    if taken.refused > layout.max_refused * taken.total:
        more = (
            f"; {taken.refused:,} of {taken.total:,} lines are like that (`--max-refused`)"
            if taken.refused > 1
            else ""
        )
        raise TraceError(f"{taken.first}{more}")
    table = taken.table(layout)
    if taken.refused:
        table.notes.append(f"{taken.refused:,} lines were not read; the first: {taken.first}")
    return table


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: bytes
    found: Any


def _lines(path: Path, progress: Progress | None) -> Generator[_Line, None, None]:
    number = 0
    with closing(read_blocks(path, progress)) as blocks:
        for block in blocks:
            for text in block.split(b"\n")[:-1]:
                number += 1
                if text.strip():
                    yield _Line(number, text, _parsed(text))


def _parsed(text: bytes) -> Any:
    """Parse a line of JSON. Returns the reason as text if it cannot be parsed."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return f"not JSON at column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"


def _names(lines: Iterator[_Line]) -> list[str]:
    known: dict[str, None] = {}
    for line in lines:
        if isinstance(line.found, dict):
            known.update(dict.fromkeys(_paths(line.found, "", _DEEPEST)))
    return list(known)


def _paths(found: Mapping[str, Any], above: str, deep: int) -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, dict) and deep > 1:
            yield from _paths(value, f"{above}{name}.", deep - 1)
        else:
            yield f"{above}{name}"


def _value(found: Any, path: str) -> Any:
    """Return the value at a path. None if there is none."""
    if not isinstance(found, dict):
        return None
    if path in found:
        return found[path]
    head, dot, rest = path.partition(".")
    while dot:
        if head in found:
            return _value(found[head], rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


@dataclass(slots=True)
class _Column:
    """What has been read of one field: converted parts, and the texts since then."""

    wanted: Wanted
    stamps: StampReader
    decimal: str
    parts: list[Float | NDArray[np.int64]] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Convert the texts that were read since the last call.

        Raises:
            RowError: A value does not have the form of the column.
        """
        from autoscaler.traces.tables import Form

        texts, self.texts = self.texts, []
        form, name = self.wanted.form, self.wanted.name
        if form is Form.TEXT:
            self.parts.append(
                np.array([self.known.setdefault(text, len(self.known)) for text in texts], np.int64)
            )
        elif form is Form.TIME:
            self.parts.append(self.stamps.read_slow(texts))
        else:
            read = numerals.read_cells if form is Form.CELL else numerals.read_slow
            self.parts.append(read(texts, name, self.decimal))


@dataclass(slots=True)
class _Taken:
    """What has been read so far: the line number of each row, and the columns."""

    path: Path
    columns: list[_Column]
    lines: array[int] = field(default_factory=lambda: array("q"))
    settled: int = 0
    total: int = 0
    refused: int = 0
    first: str = ""

    def take(self, line: _Line) -> None:
        """Take a line, or count it as refused.

        Raises:
            TraceError: A value does not have the form of its column.
        """
        from autoscaler.traces.tables import Form

        self.total += 1
        if not isinstance(line.found, dict):
            why = line.found if isinstance(line.found, str) and line.found.startswith("not JSON") else None
            self._refuse(line, why or "not an object of JSON")
            return
        row = [_value(line.found, column.wanted.name) for column in self.columns]
        for column, value in zip(self.columns, row, strict=True):
            if value is None and column.wanted.form is not Form.CELL:
                self._refuse(line, f"there is no `{column.wanted.name}`")
                return
        self.lines.append(line.number)
        for column, value in zip(self.columns, row, strict=True):
            column.texts.append(_text(value))
        if len(self.lines) - self.settled >= _SETTLED_AT:
            self._settle()

    def _refuse(self, line: _Line, why: str) -> None:
        if not self.refused:
            text = line.text.decode().strip()
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            self.first = f"{self.path}:{line.number}: {why}: {shown}"
        self.refused += 1

    def _settle(self) -> None:
        if len(self.lines) == self.settled:
            return
        for column in self.columns:
            try:
                column.settle()
            except RowError as error:
                raise TraceError(f"{self.path}:{self.lines[self.settled + error.row]}: {error}") from None
        self.settled = len(self.lines)

    def table(self, layout: Layout) -> Table:
        """Return everything that was taken.

        Raises:
            TraceError: A value does not have the form of its column.
        """
        from autoscaler.traces.tables import Form, Table, Texts

        self._settle()
        lines = np.array(self.lines, np.int64)
        table = Table(self.path, {}, {}, len(lines), layout, {}, lines)
        for column in self.columns:
            name, form = column.wanted.name, column.wanted.form
            joined = np.concatenate(column.parts) if column.parts else np.empty(0)
            if form is Form.TEXT:
                table.texts[name] = Texts(joined.astype(np.int64), tuple(column.known))
                continue
            table.numbers[name] = joined.astype(np.float64, copy=False)
            if form is Form.TIME:
                try:
                    table.numbers[name] = column.stamps.finish(table.numbers[name])
                except RowError as error:
                    raise table.error(error.row, str(error)) from None
        return table


def _text(value: Any) -> str:
    """Return a value as it would be written in a table."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
