"""Reads text files, plain or gzip, as blocks of whole lines: the first step of every trace reader.

Rules of this file: bytes in, blocks of valid UTF-8 out. What is not text is refused with line and column.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from autoscaler.errors import TraceError

MAX_BYTES = 4 << 30
"""Largest text in decompressed bytes: some hundred million rows. A larger file counts as broken or hostile."""
BLOCK_BYTES = 8 << 20
MAX_LINE = 64 << 20
"""Bytes without a non-empty line from which on a file counts as hostile."""

Progress: TypeAlias = Callable[[float], None]
"""Called from time to time with the share of the file that has been read, 0..1."""


def check_file(path: Path) -> None:
    """Check that the path is a file that can be a trace.

    Raises:
        TraceError: It is not.
    """
    if not path.exists():
        raise TraceError(f"{path}: there is no such file")
    if not path.is_file():
        raise TraceError(f"{path}: this is not a file")
    if path.suffix in (".yaml", ".yml"):
        raise TraceError(
            f"{path}: this is YAML, not a trace; if a command takes a policy, the policy comes before the trace"
        )


def read_blocks(path: Path, progress: Progress | None = None) -> Generator[bytes, None, None]:
    r"""Yield blocks of whole lines, each ending in `\n`.

    `\r\n` becomes `\n`. A byte order mark, and empty lines at the end of the file, are removed.

    Raises:
        TraceError: The file cannot be read, is too large, or is not UTF-8 text.
    """
    with opened(path, progress) as (stream, tell):
        yield from _whole_lines(path, stream, tell)


def beginning(path: Path) -> bytes:
    """Return the first block of a file, empty if there is none. Raises the errors of `read_blocks`."""
    # Without an explicit close, the generator's own would swallow an interrupt that arrives at that moment.
    with closing(read_blocks(path)) as blocks:
        return next(blocks, b"")


@contextmanager
def opened(
    path: Path, progress: Progress | None = None
) -> Generator[tuple[IO[bytes], Callable[[], object]], None, None]:
    """Yield the decompressed text of a file, and a function that reports how much of it was read.

    Raises:
        TraceError: The file cannot be read.
    """
    try:
        with path.open("rb") as packed, _unpacked(path, packed) as stream:
            size = max(path.stat().st_size, 1)
            yield stream, lambda: progress and progress(packed.tell() / size)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> TraceError:
    """Return the error for a file that cannot be read or decompressed."""
    if isinstance(error, EOFError):
        return TraceError(
            f"{path}: cannot be read: it is a gzip file that is incomplete; copy it again, or wait until it is fully "
            "written"
        )
    if isinstance(error, zlib.error | gzip.BadGzipFile):
        return TraceError(
            f"{path}: cannot be read: it is damaged, or not the gzip file that its name says; copy it again"
        )
    assert isinstance(error, OSError)
    return TraceError(f"{path}: cannot be read: {error.strerror or error}")


def part_of(progress: Progress | None, number: int, files: int) -> Progress:
    """Return the progress of one of several files that are read in sequence."""
    return lambda share: progress((number + share) / files) if progress else None


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
                f"{path}:{lines + 1}: {MAX_LINE >> 20} MiB without a line end or with empty lines only; this is not a table"
            )
    if rest := rest.rstrip(b"\r\n "):
        yield _clean(path, rest + b"\n", lines)


_KINDS = {
    b"\x1f\x8b": "compressed by gzip; give it a name that ends in .gz",
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    b"PK\x03\x04": "a zip archive or an Excel workbook (.xlsx); unzip it, or save the sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls); save the sheet as CSV in UTF-8",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; decompress it",
    b"BZh": "compressed by bzip2; decompress it",
    b"\xfd7zXZ": "compressed by xz; decompress it",
}
"""First bytes of other kinds of files, and what to do about each."""


def _without_mark(path: Path, data: bytes) -> bytes:
    for mark, told in _KINDS.items():
        if data.startswith(mark):
            raise TraceError(f"{path}: this is {told}")
    if data.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise TraceError(f"{path}: this is a web page, perhaps a login page; download the data itself")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:200]:
        raise TraceError(f"{path}:1: this is UTF-16 or not text at all; save it as UTF-8")
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
