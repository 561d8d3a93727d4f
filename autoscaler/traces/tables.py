"""Delimited text and Parquet as columns of numbers: quick on millions of rows, exact about the one that is wrong.

How: text is read in blocks of whole lines. A block is cut into fields by arrays, and its numbers and times are
converted at once. Where a block holds anything unusual (quotes, odd times, a wrong row) it is read again by the
csv module, text by text, which either gives the same columns or names the row; file, line and column are found by
a second look at the file. So memory holds the result and one block, whatever the size of the file.

Rules of this file: nothing is repaired, guessed or skipped. pyarrow is imported only for Parquet.

Not here: what the columns mean (`reading`, `per_vm`, `importing`), how times and numbers are written (`stamps`,
`numerals`).
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces import numerals
from autoscaler.traces.stamps import StampReader, TimeForm
from autoscaler.traces.trace import Float, RowError

MAX_BYTES = 4 << 30
"""The largest text read, unpacked: some hundred million rows. More is taken for a broken or hostile file."""
BLOCK_BYTES = 8 << 20
_QUOTE = ord('"')
_OPEN_QUOTE = "a quoted field is not closed in its line; is a quote missing?"
MAX_LINE = 64 << 20
"""More bytes without a line that holds something are taken for a hostile file."""
MAX_FIELD = 64
"""Fields wider than this are left to the csv module."""

Progress: TypeAlias = Callable[[float], None]
"""Told from time to time which share of the file has been read, 0..1."""


class Form(Enum):
    """What the texts of a column are."""

    TIME = auto()
    NUMBER = auto()
    TEXT = auto()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column to read.

    Attributes:
        name: As in the header; without a header its number, from 1.
        form: What its texts are.
    """

    name: str
    form: Form


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written.

    Attributes:
        separator: One character.
        header: Whether the first line names the columns.
        times: How times are written.
        decimal: What separates the decimals of numbers, a point or a comma.
    """

    separator: str = ","
    header: bool = True
    times: TimeForm = field(default_factory=TimeForm)
    decimal: str = "."


PLAIN = Layout()
Choose: TypeAlias = Callable[[list[str]], tuple[Wanted, ...]]
"""Given the names in the header, says which columns to read, or raises TraceError with what is wrong."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts.

    Attributes:
        code: int64 (n,), which of `names` each row holds.
        names: The different texts, as they first appear.
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
        rows: How many.
        layout: How it is written.
        places: Column name to its place in a line, from 0.
    """

    path: Path
    numbers: dict[str, Float]
    texts: dict[str, Texts]
    rows: int
    layout: Layout
    places: dict[str, int]

    def error(self, row: int, message: str, column: str = "") -> TraceError:
        """An error that names file, line and, where the column is given, the place in the line."""
        if is_parquet(self.path):
            return TraceError(f"{self.path}: row {row + 1}: {message}")
        return _line_error(
            self.path, row + 1 + self.layout.header, message, self.places.get(column), self.layout.separator
        )


def is_parquet(path: Path) -> bool:
    """Whether a file is read as Parquet: by its ending."""
    return path.suffix == ".parquet"


def read_table(path: Path, choose: Choose, layout: Layout = PLAIN, progress: Progress | None = None) -> Table:
    """Read the columns that `choose` names.

    Raises:
        TraceError: The file cannot be read, has another header, a row that is wrong, or no rows.
    """
    check_file(path)
    if is_parquet(path):
        from autoscaler.traces.parquet import read_parquet

        numbers, texts, rows = read_parquet(path, choose, layout.times)
        table = Table(path, numbers, texts, rows, layout, {})
    else:
        table = _Reading(path, choose, layout, progress).table()
    if not table.rows:
        raise TraceError(f"{path}: there are no rows below the header; was the recording empty?")
    return table


def check_file(path: Path) -> None:
    """The path is a file.

    Raises:
        TraceError: It is not.
    """
    if not path.exists():
        raise TraceError(f"{path}: there is no such file")
    if not path.is_file():
        raise TraceError(f"{path}: this is not a file")
    if path.suffix in (".yaml", ".yml"):
        raise TraceError(
            f"{path}: this is YAML and no trace; where a command takes a policy, it comes before the trace"
        )


# ── Blocks of whole lines ───────────────────────────────────────────────────────────────────────────────


def read_blocks(path: Path, progress: Progress | None = None) -> Generator[bytes, None, None]:
    r"""Blocks of whole lines, each ending in `\n`, with `\r\n` made `\n`, without a byte order mark and without
    empty lines at the end of the file.

    Raises:
        TraceError: The file cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        with path.open("rb") as packed, _unpacked(path, packed) as stream:
            size = max(path.stat().st_size, 1)
            yield from _whole_lines(path, stream, lambda: progress and progress(packed.tell() / size))
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None


def _unpacked(path: Path, packed: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed  # type: ignore[return-value]


def _whole_lines(path: Path, stream: IO[bytes], tell: Callable[[], object]) -> Iterator[bytes]:
    lines = taken = 0
    rest = b""
    first = True
    while data := stream.read(BLOCK_BYTES):
        taken += len(data)
        if taken > MAX_BYTES:
            raise TraceError(f"{path}: more than {MAX_BYTES >> 20} MiB of text; cut it into smaller files")
        if first:
            data = _without_mark(path, data)
            first = False
        rest += data
        end = rest.rfind(b"\n", 0, len(rest.rstrip(b"\r\n "))) + 1
        if end:
            block, rest = _clean(path, rest[:end], lines), rest[end:]
            lines += block.count(b"\n")
            tell()
            yield block
        elif len(rest) > MAX_LINE:
            raise TraceError(
                f"{path}:{lines + 1}: {MAX_LINE >> 20} MiB without a line end or of empty lines only; this is no table"
            )
    if rest := rest.rstrip(b"\r\n "):
        yield _clean(path, rest + b"\n", lines)


def _without_mark(path: Path, data: bytes) -> bytes:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:200]:
        raise TraceError(f"{path}:1: this is UTF-16 or no text at all; save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf")


def _clean(path: Path, block: bytes, lines: int) -> bytes:
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
        _refuse_byte(
            path, block, lines, b"\r", "a line ends in a bare carriage return; end lines in a newline"
        )
    _refuse_byte(path, block, lines, b"\0", "there is a NUL byte, so this is not text; was the file cut off?")
    if not block.isascii():
        try:
            block.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _byte_error(
                path, block, lines, error.start, "not UTF-8 text; save the file in UTF-8"
            ) from None
    return block


def _refuse_byte(path: Path, block: bytes, lines: int, byte: bytes, message: str) -> None:
    if (at := block.find(byte)) >= 0:
        raise _byte_error(path, block, lines, at, message)


def _byte_error(path: Path, block: bytes, lines: int, at: int, message: str) -> TraceError:
    line = lines + block.count(b"\n", 0, at) + 1
    column = len(block[block.rfind(b"\n", 0, at) + 1 : at].decode("utf-8", "replace")) + 1
    return TraceError(f"{path}:{line}:{column}: {message}")


# ── Fields ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Column:
    """What has been read of one column so far."""

    wanted: Wanted
    place: int
    stamps: StampReader
    decimal: str = "."
    parts: list[NDArray[np.float64] | NDArray[np.int64]] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def add_fast(self, texts: NDArray[np.bytes_]) -> bool:
        """Take a block; False, and nothing taken, where only `add_slow` can tell."""
        part: NDArray[np.float64] | NDArray[np.int64] | None
        if self.wanted.form is Form.TIME:
            part = self.stamps.read_fast(texts)
        elif self.wanted.form is Form.NUMBER:
            part = numerals.read_fast(texts, self.decimal)
        else:
            names, place = np.unique(texts, return_inverse=True)
            part = self._codes([name.decode() for name in names.tolist()])[place]
        if part is None:
            return False
        self.parts.append(part)
        return True

    def add_slow(self, texts: Sequence[str]) -> None:
        """Take a block.

        Raises:
            RowError: A text that is not what the column holds.
        """
        if self.wanted.form is Form.TIME:
            self.parts.append(self.stamps.read_slow(texts))
        elif self.wanted.form is Form.NUMBER:
            self.parts.append(numerals.read_slow(texts, self.wanted.name, self.decimal))
        else:
            self.parts.append(self._codes(texts))

    def forget_block(self) -> None:
        """The last block given to `add_fast` will be read anew."""
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
        self._line = 0  # lines before the block at hand
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
        end = block.index(b"\n") + 1
        (names,) = self._split_slow(block[:end])
        names = [name.strip() for name in names]
        self._width = len(names)
        if not self._layout.header:
            names = [str(place + 1) for place in range(len(names))]
        try:
            chosen = self._choose(names)
        except TraceError as error:
            raise TraceError(f"{self._path}:1: {error}") from None
        self._columns = [
            _Column(wanted, names.index(wanted.name), StampReader(self._layout.times), self._layout.decimal)
            for wanted in chosen
        ]
        if self._layout.header:
            self._line = 1
            return block[end:]
        return block

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
        """Whether the block was plain: the right number of fields, usual numbers and times, usual quotes."""
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
                    found = f"{len(row)} columns where the header has {self._width}" if row else "empty line"
                    raise TraceError(f"{self._path}:{line}: {found}")
                rows.append(row)
        except csv.Error as error:
            why = _OPEN_QUOTE if "end of data" in str(error) else f"not CSV: {error}"
            raise TraceError(f"{self._path}:{self._line + len(rows) + 1}: {why}") from None
        return rows


def _added(column: _Column, texts: NDArray[np.bytes_]) -> bool:
    try:
        return column.add_fast(texts)
    except RowError:  # said with its place by the slow look
        return False


def _field(
    data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.bytes_] | None:
    """The texts of one column of a block, or None where one is empty or too wide for the quick way."""
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
    """Where a field begins in its line, from 1, by reading up to there once more."""
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
