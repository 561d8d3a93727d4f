"""Imports access logs as request counts: common and combined format, HAProxy, W3C, AWS application load balancers.

Each line is one request at its time of arrival: the time in brackets in common, combined and HAProxy logs, and the creation
time in AWS logs (their first time is that of the response; older lines have no other). HAProxy logs local times without an
offset, so the zone must be given. A syslog prefix is skipped.

Rules of this file: lines that cannot be parsed are counted and shown, and too many of them end the import. A file covers the
time from its first to its last line. Within it, an interval without lines is a measured zero. Time that no file covers is a
gap. Lines may be out of order up to a bound; a line further back is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import IO

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import BLOCK_BYTES, Progress, check_file, opened, part_of
from autoscaler.traces.events import MAX_INTERVALS
from autoscaler.traces.trace import Trace, TraceKind, describe_time

MAX_LINE = 16 << 20
"""Longest line in bytes. A file with longer lines is not a log."""
REMEMBERED = 100_000
"""Number of distinct time texts whose epoch seconds are cached."""
LOOKED_AT = 200
"""Number of lines from which the format is detected."""
SHOWN = 5
"""Number of refused lines kept as examples."""


class LogFormat(StrEnum):
    """The format of the lines."""

    COMMON = "common"
    """Common and combined: `host ident user [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 2326 …`."""
    HAPROXY = "haproxy"
    """HAProxy's `option httplog` or `tcplog`: `10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 …`."""
    W3C = "w3c"
    """W3C's extended format with date and time first, as IIS and CloudFront write it: `2026-03-01 12:00:00 …`, in UTC."""
    ALB = "alb"
    """AWS application load balancer."""


_STAMP = rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z"
_QUOTED = rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_COMMON = re.compile(
    rb"^\S+ +\S+ [^\n]*?\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    + _QUOTED
    + rb" (?:\d{3}|-) (?:\d+|-)(?: [^\n]*+)?\r?\n()",
    re.MULTILINE,
)
_HAPROXY = re.compile(
    rb"^[^\n]*?\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d)\.\d{3}\] \S+ [^ /\n]+/\S+ [-+\d]+(?:/[-+\d]+)+ [^\n]*\n()",
    re.MULTILINE,
)
_W3C = re.compile(rb"^(\d{4}-\d\d-\d\d[ \t]\d\d:\d\d:\d\d)[ \t][^\n]*\n()", re.MULTILINE)
_W3C_FIELDS = re.compile(rb"#Fields:[ \t]*date[ \t]time[ \t]")
"""The line that identifies the W3C format. Date and time alone do not: any table may begin with them."""
_ALB = re.compile(
    rb"^(?:https?|h2|grpcs|wss?) "
    + _STAMP
    + rb" \S+ \S+ \S+ (?:-?[\d.]+ ){3}(?:\d{3}|-) (?:\d{3}|-) \d+ \d+ "
    + _QUOTED
    + rb"(?:[^\n]*? "
    + _STAMP
    + rb" )?[^\n]*\n",
    re.MULTILINE,
)
_NAMES_OF_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: at for at, name in enumerate(_NAMES_OF_MONTHS, 1)}


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that was not counted.

    Attributes:
        path, line: The file, and the number of the line.
        why: The reason, in a few words.
        text: The beginning of the line.
    """

    path: Path
    line: int
    why: str
    text: str

    def __str__(self) -> str:
        """Format the refused line as one line for a person."""
        return f"{self.path}:{self.line}: {self.why}: {self.text}"


@dataclass(slots=True)
class LogCounts:
    """What was read from the files.

    Attributes:
        lines: Number of lines that are not empty.
        refused: Number of lines that were not counted.
        shown: The first refused lines.
        spans: Numbers of the first and the last interval of each file that has a counted line.
        per_interval: Requests by number of the interval since the epoch.
        formats: Formats of the files, in order.
    """

    lines: int = 0
    refused: int = 0
    shown: list[RefusedLine] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    per_interval: Counter[int] = field(default_factory=Counter)
    formats: list[LogFormat] = field(default_factory=list)

    def refuse(self, path: Path, line: int, why: str, text: bytes) -> None:
        """Count a line that cannot be used."""
        self.refused += 1
        if len(self.shown) < SHOWN:
            self.shown.append(RefusedLine(path, line, why, _printable(text)))


def read_access_logs(
    paths: Iterable[Path],
    interval_s: float,
    *,
    log_format: LogFormat | None = None,
    max_refused: float = 0.01,
    disorder_s: float = 600.0,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> tuple[Trace, LogCounts]:
    """Count the requests in log files per interval.

    Args:
        paths: Text or .gz files in any order, which together are one log.
        interval_s: Length of an interval in seconds. Intervals are whole ones since the epoch.
        log_format: Format of all files. None detects it from the first lines of each file.
        max_refused: Largest share of lines that may be refused, 0..1.
        disorder_s: Seconds by which a line may be earlier than the latest line before it in its file.
        zone: Zone of times without an offset, which HAProxy writes.
        progress: Called with the share of the files that has been read.

    Raises:
        TraceError: A file cannot be read or is given twice, too many lines are refused, or no line is left.
    """
    found, seen = LogCounts(), dict[str, Path]()
    files = list(paths)
    for number, path in enumerate(files):
        check_file(path)
        share = part_of(progress, number, len(files))
        digest = _read_file(path, found, interval_s, log_format, (disorder_s, zone), share)
        if digest in seen:
            raise TraceError(
                f"{path}: this is the same as {seen[digest]}; its requests would be counted twice"
            )
        seen[digest] = path
    if found.refused > max_refused * found.lines or not found.spans:
        raise TraceError(_too_many(files, found, max_refused))
    return _trace(files[0], found, interval_s), found


def told_format(path: Path) -> LogFormat | None:
    """Detect the format that most of a file's first lines have. None if no line has a known format.

    Raises:
        TraceError: The file cannot be read.
    """
    check_file(path)
    hits: Counter[LogFormat] = Counter()
    with opened(path) as (stream, _tell):
        for _ in range(LOOKED_AT):
            line = stream.readline(MAX_LINE).rstrip(b"\n") + b"\n"
            if _W3C_FIELDS.match(line):
                return LogFormat.W3C
            hits.update(
                form
                for form, pattern in _PATTERNS.items()
                if form is not LogFormat.W3C and pattern.match(line)
            )
    return max(hits, key=lambda form: hits[form]) if hits else None


_PATTERNS = {LogFormat.COMMON: _COMMON, LogFormat.HAPROXY: _HAPROXY, LogFormat.W3C: _W3C, LogFormat.ALB: _ALB}


def _read_file(
    path: Path,
    found: LogCounts,
    interval_s: float,
    log_format: LogFormat | None,
    how: tuple[float, tzinfo],
    progress: Progress,
) -> str:
    """Count the lines of a file, and return the digest of its content."""
    form = log_format or told_format(path)
    if form is None:
        raise TraceError(
            f"{path}: none of the first lines has a known format: {', '.join(LogFormat)} (combined is read as "
            f"common); the file begins with `{_first_line(path)}`; any file with a time in each line can be read as events "
            "if the time is a column of its own (`--shape events --no-header --time 1`)"
        )
    found.formats.append(form)
    counting = _Counting(path, found, form, interval_s, *how)
    digest = hashlib.sha256()
    with opened(path, progress) as (stream, tell):
        for block in _whole_lines(path, stream):
            digest.update(block)
            counting.take(block)
            tell()
    if counting.steps:
        found.spans.append((min(counting.steps), max(counting.steps)))
        found.per_interval.update(counting.steps)
    return digest.hexdigest()


def _whole_lines(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield blocks of whole lines, each ending in a newline."""
    rest = b""
    while data := stream.read(BLOCK_BYTES):
        rest += data
        end = rest.rfind(b"\n") + 1
        if end:
            yield rest[:end]
            rest = rest[end:]
        elif len(rest) > MAX_LINE:
            raise TraceError(
                f"{path}: there is a line of more than {MAX_LINE >> 20} MiB, so this is not an access log"
            )
    if rest:
        yield rest + b"\n"


@dataclass(slots=True)
class _Counting:
    """Counts one file: whole blocks at once, and line by line if something in a block is wrong."""

    path: Path
    found: LogCounts
    form: LogFormat
    interval_s: float
    disorder_s: float
    zone: tzinfo = UTC
    line: int = 0
    latest_s: float = -np.inf
    known: dict[bytes, float] = field(default_factory=dict)
    steps: Counter[int] = field(default_factory=Counter)
    newest_s: float = -np.inf

    def take(self, block: bytes) -> None:
        """Count the lines of a block."""
        lines = block.count(b"\n")
        if not self._take_whole(block, lines):
            self.newest_s = self.latest_s
            for at, line in enumerate(_lines(block), 1):
                self._take_line(self.line + at, line)
        self.line += lines

    def _take_whole(self, block: bytes, lines: int) -> bool:
        """Count a block at once. False, with nothing counted, if any of its lines cannot be counted."""
        matches = _PATTERNS[self.form].findall(block)
        if len(matches) != lines:
            return False
        times = np.array([self._moment(second or first) for first, second in matches], np.float64)
        latest = np.maximum.accumulate(np.maximum(times, self.latest_s))
        if not (times >= latest - self.disorder_s).all():  # also false for NaN, a time that does not exist
            return False
        self.latest_s = float(latest[-1])
        numbers, counts = np.unique(np.floor(times / self.interval_s).astype(np.int64), return_counts=True)
        self.steps.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        self.found.lines += lines
        return True

    def _take_line(self, number: int, line: bytes) -> None:
        if line.isspace() or (self.form is LogFormat.W3C and line.startswith(b"#")):
            return
        self.found.lines += 1
        match = _PATTERNS[self.form].match(line)
        at_s = self._moment(match[2] or match[1]) if match else np.nan
        if np.isnan(at_s):
            self.found.refuse(self.path, number, f"not a line of the {self.form} format", line)
        elif at_s < self.latest_s - self.disorder_s:
            why = f"{self.latest_s - at_s:.0f} s earlier than a line before it"
            self.found.refuse(self.path, number, why, line)
        else:
            self.latest_s = max(self.latest_s, at_s)
            self.steps[int(at_s // self.interval_s)] += 1

    def _moment(self, text: bytes) -> float:
        """Return the epoch seconds of a time text. NaN if it is not a time. Cached, because many lines have the same second."""
        at_s = self.known.get(text)
        if at_s is None:
            try:
                at_s, twice = self._parsed(text.decode())
            except (ValueError, KeyError):
                at_s, twice = np.nan, False
            if twice:
                return at_s
            if len(self.known) > REMEMBERED:
                self.known.clear()
            self.known[text] = at_s
        return at_s

    def _parsed(self, text: str) -> tuple[float, bool]:
        """Return epoch seconds, and whether the local time occurs twice. Earlier lines then decide which one is meant."""
        if self.form in {LogFormat.ALB, LogFormat.W3C}:
            return datetime.fromisoformat(f"{text[:10]}T{text[11:]}+00:00").timestamp(), False
        month = _MONTHS[text[3:6]]  # not strptime, whose month names are those of the locale
        iso = f"{text[7:11]}-{month:02}-{text[:2]}T{text[12:20]}"
        if self.form is LogFormat.COMMON:
            return datetime.fromisoformat(f"{iso}{text[21:24]}:{text[24:]}").timestamp(), False
        local = datetime.fromisoformat(iso).replace(tzinfo=self.zone)
        at_s, second_s = local.timestamp(), local.replace(fold=1).timestamp()
        twice = at_s < second_s
        if twice and at_s < self.newest_s - self.disorder_s:
            at_s = second_s
        self.newest_s = max(self.newest_s, at_s)
        return at_s, twice


def _lines(block: bytes) -> list[bytes]:
    """Split a block into lines with their ends. Only a newline ends a line."""
    return [line + b"\n" for line in block.split(b"\n")[:-1]]


def _trace(path: Path, found: LogCounts, interval_s: float) -> Trace:
    covered = _union(found.spans)
    total = sum(last - first + 1 for first, last in covered)
    if total > MAX_INTERVALS:
        raise TraceError(
            f"the logs cover {total} intervals of {interval_s:g} s; check for a wrong time, or choose a longer interval"
        )
    steps = np.concatenate([np.arange(first, last + 1) for first, last in covered])
    values = np.zeros(len(steps))
    numbers = np.fromiter(found.per_interval.keys(), np.int64, len(found.per_interval))
    counts = np.fromiter(found.per_interval.values(), np.float64, len(found.per_interval))
    values[np.searchsorted(steps, numbers)] = counts
    return Trace.build(
        steps * interval_s, values, kind=TraceKind.COUNT, name=path.name.split(".")[0], interval_s=interval_s
    )


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge spans that overlap or adjoin, in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _too_many(files: list[Path], found: LogCounts, max_refused: float) -> str:
    names = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    if not found.lines:
        return f"{names}: the file is empty"
    shown = "".join(f"\n  {line}" for line in found.shown)
    return (
        f"{names}: {found.refused:,} of {found.lines:,} lines cannot be counted, more than the allowed share of "
        f"{max_refused:.3g} (`--max-refused`); the first:{shown}"
    )


def _first_line(path: Path) -> str:
    with opened(path) as (stream, _tell):
        return _printable(stream.readline(MAX_LINE))


def _printable(text: bytes) -> str:
    line = text.decode("utf-8", "replace").strip()[:80]
    return "".join(letter if letter.isprintable() else "�" for letter in line)


def notes(found: LogCounts, trace: Trace) -> list[str]:
    """Return notes on the trace for the user."""
    told = [f"{found.lines - found.refused:,} requests in {', '.join(sorted(set(found.formats)))} format"]
    if found.refused:
        told.append(f"{found.refused:,} lines were not counted; the first: {found.shown[0]}")
    if trace.missing:
        told.append(f"{trace.missing} intervals between the files are not covered and stay unknown")
    told.append(
        f"the first and the last interval ({describe_time(trace.start_s)}, "
        f"{describe_time(trace.end_s - trace.interval_s)}) may be covered only in part"
    )
    return told
