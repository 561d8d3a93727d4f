"""Tables of JSON lines, an object a line, as structured logs are written: columns are the objects' fields.

A field within a field is named by its path, such as `http.time`.

Rules of this file: what is no object, or lacks a field that is asked for, is refused by its line; how many such lines
are suffered is said by the caller (`Layout.max_refused`), and they are counted.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces import numerals
from autoscaler.traces.blocks import Progress, read_blocks
from autoscaler.traces.stamps import StampReader
from autoscaler.traces.trace import Float, RowError

if TYPE_CHECKING:
    from autoscaler.traces.tables import Choose, Layout, Table, Wanted

LOOKED_AT = 200
"""Lines from which the names of fields are told."""
_DEEPEST = 4
_SHOWN = 80


def is_json_lines(path: Path) -> bool:
    """Whether a file's first line is an object of JSON."""
    # Left to be closed by itself it would swallow an interrupt that comes just then.
    with closing(read_blocks(path)) as blocks:
        begin = next(blocks, b"").lstrip()
    if not begin.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(begin.split(b"\n", 1)[0]), dict)
    except ValueError:
        return False


def field_names(path: Path) -> list[str]:
    """Names of the fields, as the first lines have them."""
    with closing(_lines(path, None)) as lines:
        return _names(islice(lines, LOOKED_AT))


def read_json_lines(path: Path, choose: Choose, layout: Layout, progress: Progress | None = None) -> Table:
    """The fields that `choose` names.

    Raises:
        TraceError: More lines than are suffered cannot be used, or a value is none of its kind.
    """
    from autoscaler.traces.tables import Table

    with closing(_lines(path, progress)) as lines:
        first = list(islice(lines, LOOKED_AT))
        try:
            wanted = choose(_names(iter(first)))
        except TraceError as error:
            raise TraceError(f"{path}:1: {error}") from None
        taken = _Taken(path, wanted)
        for line in chain(first, lines):
            taken.take(line)
    if taken.refused > layout.max_refused * taken.total:
        more = (
            f"; {taken.refused:,} of {taken.total:,} lines are like that (`--max-refused`)"
            if taken.refused > 1
            else ""
        )
        raise TraceError(f"{taken.first}{more}")
    table = Table(path, {}, {}, len(taken.lines), layout, {}, np.array(taken.lines, np.int64))
    for column in wanted:
        taken.fill(table, column)
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
    """The object, or why there is none."""
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
    """What stands at a path, None where nothing does."""
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
class _Taken:
    """What has been read so far: per row its line, per column its values as they stand there."""

    path: Path
    wanted: tuple[Wanted, ...]
    lines: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    total: int = 0
    refused: int = 0
    first: str = ""

    def take(self, line: _Line) -> None:
        from autoscaler.traces.tables import Form

        self.total += 1
        if not isinstance(line.found, dict):
            why = line.found if isinstance(line.found, str) and line.found.startswith("not JSON") else None
            self._refuse(line, why or "not an object of JSON")
            return
        row = [_value(line.found, column.name) for column in self.wanted]
        for column, value in zip(self.wanted, row, strict=True):
            if value is None and column.form is not Form.CELL:
                self._refuse(line, f"there is no `{column.name}`")
                return
        self.lines.append(line.number)
        for column, value in zip(self.wanted, row, strict=True):
            self.columns.setdefault(column.name, []).append(value)

    def _refuse(self, line: _Line, why: str) -> None:
        if not self.refused:
            text = line.text.decode().strip()
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            self.first = f"{self.path}:{line.number}: {why}: {shown}"
        self.refused += 1

    def fill(self, table: Table, column: Wanted) -> None:
        """Put a column into the table.

        Raises:
            TraceError: A value is none of its kind.
        """
        from autoscaler.traces.tables import Form, Texts

        texts = [_text(value) for value in self.columns.get(column.name, ())]
        if column.form is Form.TEXT:
            known: dict[str, int] = {}
            code = np.array([known.setdefault(text, len(known)) for text in texts], np.int64)
            table.texts[column.name] = Texts(code, tuple(known))
            return
        try:
            table.numbers[column.name] = self._numbers(texts, column, table)
        except RowError as error:
            raise table.error(error.row, str(error)) from None

    @staticmethod
    def _numbers(texts: list[str], column: Wanted, table: Table) -> Float:
        from autoscaler.traces.tables import Form

        if column.form is Form.TIME:
            reader = StampReader(table.layout.times)
            return reader.finish(reader.read_slow(texts)) if texts else np.empty(0)
        read = numerals.read_cells if column.form is Form.CELL else numerals.read_slow
        return read(texts, column.name, table.layout.decimal)


def _text(value: Any) -> str:
    """A value as it would stand in a table."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
