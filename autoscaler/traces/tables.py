"""Reads delimited text and Parquet as numeric columns: fast on millions of rows, exact about the faulty one.

Text is read in blocks of whole lines. A block is cut into fields by array operations, and its numbers and times are
converted at once. A block with anything unusual (quotes, odd times, a wrong row) is read again by the csv module, text by
text, which either gives the same columns or names the row. File, line and column of an error are found by reading the file
once more. Memory therefore holds the result and one block, whatever the size of the file.

Rules of this file: nothing is repaired, guessed or skipped. pyarrow is imported only for Parquet.

Not here: how a file becomes blocks (`blocks`), what the columns mean (`reading`, `per_vm`, `wide`, `column_roles`), how
times and numbers are written (`stamps`, `numerals`), tables of JSON lines (`json_lines`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces import numerals
from autoscaler.traces.blocks import Progress, beginning, check_file, read_blocks
from autoscaler.traces.json_lines import is_json_lines, read_json_lines
from autoscaler.traces.stamps import StampReader, TimeForm
from autoscaler.traces.trace import Float, RowError

_QUOTE = ord('"')
_OPEN_QUOTE = "a quoted field is not closed in its line; is a quote missing?"
_LOOKED_AT = 4096
"""Number of bytes at the beginning of a file that identify it."""
MAX_FIELD = 64
"""Widest field, in bytes, for the fast path. Wider ones are left to the csv module."""


class Form(Enum):
    """The form of the texts of a column."""

    TIME = auto()
    NUMBER = auto()
    CELL = auto()
    """A number, or nothing if it is unknown, which becomes NaN."""
    TEXT = auto()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column to read.

    Attributes:
        name: Name in the header. Without a header, its number from 1. Of times, it may be two names (`joined`).
        form: Form of its texts.
    """

    name: str
    form: Form


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a table.

    Attributes:
        separator: One character.
        header: Whether the first line names the columns.
        times: Format of times.
        decimal: Sign that separates the decimals of numbers, a point or a comma.
        skip: Number of lines before the header, or before the first row if there is no header.
        max_refused: For JSON lines, the largest share of lines that may be unreadable or lack a field.
        every_line: For JSON lines, whether to look for columns in all lines instead of only the first ones.
    """

    separator: str = ","
    header: bool = True
    times: TimeForm = field(default_factory=TimeForm)
    decimal: str = "."
    skip: int = 0
    max_refused: float = 0.0
    every_line: bool = False


PLAIN = Layout()


def joined(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that a name stands for: that column, or two whose names, with a space between them, are this name.

    A date and a time of day in two columns are read as one text with a space. Empty if there are no such columns.
    """
    if name in names:
        return (name,)
    words = name.split(" ")
    pairs = ((" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words)))
    return next((pair for pair in pairs if {*pair} <= {*names}), ())


Choose: TypeAlias = Callable[[list[str]], tuple[Wanted, ...]]
"""Chooses the columns to read, given the names in the header. Raises TraceError with what is wrong."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts.

    Attributes:
        code: int64 (n,), index into `names` for each row.
        names: The distinct texts, in order of first appearance.
    """

    code: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a file, and what is needed to name a row in an error.

    Attributes:
        path: The file.
        numbers: Columns of times (epoch seconds) and numbers by name, float64 (rows,).
        texts: Columns of texts by name.
        rows: Number of rows.
        layout: The layout of the file.
        places: Position of each column in a line, from 0, by name.
        lines: int64 (rows,), line number of each row, from 1. None if rows are consecutive lines.
        notes: Notes for the user on how the file was read.
    """

    path: Path
    numbers: dict[str, Float]
    texts: dict[str, Texts]
    rows: int
    layout: Layout
    places: dict[str, int]
    lines: NDArray[np.int64] | None = None
    notes: list[str] = field(default_factory=list)

    def error(self, row: int, message: str, column: str = "") -> TraceError:
        """Return an error that names file, line and, if the column is given, the position in the line."""
        if is_parquet(self.path):
            return TraceError(f"{self.path}: row {row + 1}: {message}")
        if self.lines is not None:
            return TraceError(f"{self.path}:{self.lines[row]}: {message}")
        return _line_error(
            self.path,
            row + 1 + self.layout.header + self.layout.skip,
            message,
            self.places.get(column),
            self.layout.separator,
        )


def is_parquet(path: Path) -> bool:
    """Return whether a file is read as Parquet, judging by its ending."""
    return path.suffix == ".parquet"


def is_json_with(path: Path, *marks: bytes) -> bool:
    """Return whether a file looks like a JSON object that has one of these words near its beginning."""
    begin = b"" if is_parquet(path) else beginning(path)[:_LOOKED_AT]
    return begin.lstrip().startswith(b"{") and any(mark in begin for mark in marks)


def declared(path: Path, layout: Layout) -> Layout:
    """Return the layout with the separator that a first line such as `sep=;` declares. That line is then skipped."""
    if is_parquet(path) or layout.skip:
        return layout
    first = beginning(path)[:6].decode("utf-8", "replace").strip("\n")
    if first[:4].lower() != "sep=" or len(first) != 5:
        return layout
    return replace(layout, separator=first[4], skip=1)


def read_table(path: Path, choose: Choose, layout: Layout = PLAIN, progress: Progress | None = None) -> Table:
    """Read the columns that `choose` names.

    Raises:
        TraceError: The file cannot be read, has another header, has a wrong row, or has no rows.
    """
    check_file(path)
    layout = declared(path, layout)
    if is_parquet(path):
        from autoscaler.traces.parquet import read_parquet

        numbers, texts, rows = read_parquet(path, _single(choose), layout.times)
        table = Table(path, numbers, texts, rows, layout, {})
    elif is_json_lines(path):
        table = read_json_lines(path, _single(choose), layout, progress)
    else:
        table = _Reading(path, choose, layout, progress).table()
    if not table.rows:
        raise TraceError(f"{path}: there are no rows below the header; was the recording empty?")
    return table


def _single(choose: Choose) -> Choose:
    """Return the choice, for files in which a time is one value."""

    def chosen(names: list[str]) -> tuple[Wanted, ...]:
        wanted = choose(names)
        for column in wanted:
            if len(joined(column.name, names)) > 1:
                raise TraceError(
                    f"`{column.name}` are two columns; only of CSV files can they be read as one time (`--time`)"
                )
        return wanted

    return chosen


# ── Fields ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Column:
    """What has been read of one column so far."""

    wanted: Wanted
    place: int
    second: int | None
    """Place of the time of day if `place` is that of the date only."""
    stamps: StampReader
    decimal: str = "."
    parts: list[NDArray[np.float64] | NDArray[np.int64]] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def add_fast(self, texts: NDArray[np.bytes_]) -> bool:
        """Take a block. Returns False, with nothing taken, if `add_slow` is needed."""
        part: NDArray[np.float64] | NDArray[np.int64] | None
        if self.wanted.form is Form.TIME:
            part = self.stamps.read_fast(texts)
        elif self.wanted.form in {Form.NUMBER, Form.CELL}:
            part = numerals.read_fast(texts, self.decimal)
        else:
            names, place = np.unique(texts, return_inverse=True)
            part = self._codes([name.decode() for name in names.tolist()])[place]
        if part is None:
            return False
        self.parts.append(part)
        return True

    def add_slow(self, texts: Sequence[str]) -> None:
        """Take a block, text by text.

        Raises:
            RowError: A text does not have the form of the column.
        """
        if self.wanted.form is Form.TIME:
            self.parts.append(self.stamps.read_slow(texts))
        elif self.wanted.form is Form.NUMBER:
            self.parts.append(numerals.read_slow(texts, self.wanted.name, self.decimal))
        elif self.wanted.form is Form.CELL:
            self.parts.append(numerals.read_cells(texts, self.wanted.name, self.decimal))
        else:
            self.parts.append(self._codes(texts))

    def forget_block(self) -> None:
        """Forget the last block given to `add_fast`, which will be read again."""
        self.parts.pop()
        if self.wanted.form is Form.TIME:
            self.stamps.forget_block()

    def _codes(self, names: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self.known.setdefault(name, len(self.known)) for name in names], np.int64)


class _Reading:
    """One pass over one file."""

    def __init__(self, path: Path, choose: Choose, layout: Layout, progress: Progress | None) -> None:
        self._path = path
        self._choose = choose
        self._layout = layout
        self._progress = progress
        self._width = 0
        self._line = 0  # number of lines before the current block
        self._columns: list[_Column] = []

    def table(self) -> Table:
        rows = 0
        for whole in read_blocks(self._path, self._progress):
            block = whole
            if not self._columns:
                block = self._begin(block)
            taken = block.count(b"\n")
            if taken:
                self._take(block)
            rows += taken
            self._line += taken
        if not self._columns:
            raise TraceError(f"{self._path}: the file is empty")
        return self._made(rows)

    def _begin(self, block: bytes) -> bytes:
        for _ in range(self._layout.skip):
            self._line += 1
            if not (block := block[block.index(b"\n") + 1 :]):
                raise TraceError(f"{self._path}: there are no lines after those to skip (`--skip`)")
        end = block.index(b"\n") + 1
        (names,) = self._split_slow(block[:end])
        names = [name.strip() for name in names]
        self._width = len(names)
        if not self._layout.header:
            names = [str(place + 1) for place in range(len(names))]
        try:
            chosen = self._choose(names)
        except TraceError as error:
            raise TraceError(f"{self._path}:{self._line + 1}: {error}") from None
        self._columns = [
            self._column(wanted, [names.index(name) for name in joined(wanted.name, names)])
            for wanted in chosen
        ]
        if self._layout.header:
            self._line += 1
            return block[end:]
        return block

    def _column(self, wanted: Wanted, places: Sequence[int]) -> _Column:
        second = places[1] if len(places) > 1 else None
        return _Column(wanted, places[0], second, StampReader(self._layout.times), self._layout.decimal)

    def _made(self, rows: int) -> Table:
        places = {column.wanted.name: column.place for column in self._columns}
        table = Table(self._path, {}, {}, rows, self._layout, places)
        for column in self._columns:
            name, parts = column.wanted.name, column.parts
            joined = np.concatenate(parts) if parts else np.empty(0)
            parts.clear()
            if column.wanted.form is Form.TEXT:
                table.texts[name] = Texts(joined.astype(np.int64), tuple(column.known))
                continue
            table.numbers[name] = joined.astype(np.float64, copy=False)
            if column.wanted.form is Form.TIME:
                try:
                    table.numbers[name] = column.stamps.finish(table.numbers[name])
                except RowError as error:
                    raise table.error(error.row, str(error), name) from None
        return table

    def _take(self, block: bytes) -> None:
        if self._take_fast(block):
            return
        rows = self._split_slow(block)
        for column in self._columns:
            texts = [row[column.place] for row in rows]
            if column.second is not None:
                texts = [f"{text} {row[column.second]}" for text, row in zip(texts, rows, strict=True)]
            try:
                column.add_slow(texts)
            except RowError as error:
                raise _line_error(
                    self._path,
                    self._line + error.row + 1,
                    str(error),
                    column.place,
                    self._layout.separator,
                ) from None

    def _take_fast(self, block: bytes) -> bool:
        """Take a plain block: the right number of fields, usual numbers and times, usual quotes. False if it is not plain."""
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero((data == ord("\n")) | (data == ord(self._layout.separator)))
        if len(ends) % self._width:
            return False
        by_line = ends.reshape(-1, self._width)
        if (data[by_line[:, -1]] != ord("\n")).any() or (data[by_line[:, :-1]] == ord("\n")).any():
            return False
        starts = np.concatenate(([0], ends[:-1] + 1)).reshape(by_line.shape)
        if b'"' in block:
            quoted = data[starts] == _QUOTE
            closed = (data[by_line - 1] == _QUOTE) & (by_line - starts >= 2)
            if (quoted != closed).any() or block.count(b'"') != 2 * int(quoted.sum()):
                return False
            starts, by_line = starts + quoted, by_line - quoted
        done: list[_Column] = []
        for column in self._columns:
            texts = _field(data, starts[:, column.place], by_line[:, column.place])
            if texts is not None and column.second is not None:
                times = _field(data, starts[:, column.second], by_line[:, column.second])
                texts = None if times is None else np.strings.add(np.strings.add(texts, b" "), times)
            if texts is None or not _added(column, texts):
                for other in done:  # the csv module reads this block anew, for all columns
                    other.forget_block()
                return False
            done.append(column)
        return True

    def _split_slow(self, block: bytes) -> list[list[str]]:
        reader = csv.reader(
            io.StringIO(block.decode(), newline=""), strict=True, delimiter=self._layout.separator
        )
        rows: list[list[str]] = []
        try:
            for row in reader:
                line = self._line + len(rows) + 1
                if reader.line_num != len(rows) + 1:
                    raise TraceError(f"{self._path}:{line}: {_OPEN_QUOTE}")
                if self._width and len(row) != self._width:
                    found = (
                        f"{len(row)} columns where the header has {self._width}"
                        if row
                        else "empty line; remove it"
                    )
                    raise TraceError(f"{self._path}:{line}: {found}")
                rows.append(row)
        except csv.Error as error:
            why = _OPEN_QUOTE if "end of data" in str(error) else f"not CSV: {error}"
            raise TraceError(f"{self._path}:{self._line + len(rows) + 1}: {why}") from None
        return rows


def _added(column: _Column, texts: NDArray[np.bytes_]) -> bool:
    try:
        return column.add_fast(texts)
    except RowError:  # add_slow reports it with its place
        return False


def _field(
    data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.bytes_] | None:
    """Return the texts of one column of a block. None if a text is empty or too wide for the fast path."""
    length = stop - start
    width = int(length.max())
    if int(length.min()) < 1 or width > MAX_FIELD:
        return None
    padded = data if int(start[-1]) + width <= len(data) else np.append(data, np.zeros(width, np.uint8))
    letters = np.lib.stride_tricks.sliding_window_view(padded, width)[start]
    if int(length.min()) < width:
        letters[np.arange(width) >= length[:, None]] = 0
    return np.ascontiguousarray(letters).view(f"S{width}").ravel()


# ── Errors ──────────────────────────────────────────────────────────────────────────────────────────────


def _line_error(path: Path, line: int, message: str, place: int | None, separator: str) -> TraceError:
    where = f"{path}:{line}"
    if place is not None and (column := _column_of(path, line, place, separator)):
        where += f":{column}"
    return TraceError(f"{where}: {message}")


def _column_of(path: Path, line: int, place: int, separator: str) -> int | None:
    """Return where a field begins in its line, from 1, by reading the file up to there once more."""
    before = 0
    for block in read_blocks(path):
        here = block.count(b"\n")
        if before + here < line:
            before += here
            continue
        text = block.split(b"\n", line - before)[line - before - 1].decode()
        quoted, passed = False, 0
        for at, letter in enumerate(text):
            if passed == place:
                return at + 1
            quoted ^= letter == '"'
            passed += letter == separator and not quoted
        return len(text) + 1 if passed == place else None
    return None
