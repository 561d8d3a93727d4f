"""What all commands share: exit codes, error sentences, option types, log setup.

Rules of this file: no heavy imports at the top, so that `--help` stays quick.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import typer

from autoscaler.words import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from autoscaler.cli.progress import Interruption
    from autoscaler.traces.trace import Trace

_ANY_WIDTH = 1000
OK = 0
FAILED = 1
"""Exit code: the command failed; the reason is on standard error."""
INTERRUPTED = 130
_END_OF_TIME_S = 253_402_300_800.0


@contextmanager
def errors_in_words(command: str) -> Iterator[None]:
    """Context that ends a command with one message and an exit code instead of a traceback.

    Raises:
        Exit: With code 1 after an error of this program, 130 after Ctrl-C.
    """
    from autoscaler.errors import AutoscalerError

    try:
        yield
    except AutoscalerError as error:
        typer.echo(printable(f"{command}: {error}"), err=True)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        typer.echo(f"{command}: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


def seconds(text: str | float) -> float:
    """Parse a duration such as 40s, 5m or 1h30m into seconds. Numbers, which are defaults of options, are returned as they are.

    Raises:
        BadParameter: The text is not a duration, or not longer than 0.
    """
    from autoscaler.config.quantities import DURATION

    if isinstance(text, int | float):
        return float(text)
    try:
        value = DURATION.read(text)
    except Exception:  # noqa: BLE001  the reader raises pydantic's own error; the user needs the form only
        raise typer.BadParameter(f"{text!r} is not a duration; write for example 40s, 5m or 1h30m") from None
    if not isinstance(value, float) or not value > 0:
        raise typer.BadParameter(f"{text!r} is not longer than 0")
    return value


def share(text: str | float) -> float:
    """Parse a share such as 90% or 0.9 into a number from 0 to 1.

    Raises:
        BadParameter: The text is not a share.
    """
    try:
        value = float(text.removesuffix("%")) / 100 if isinstance(text, str) and "%" in text else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not a share; write for example 90%")
    return value


def moment(text: str | float) -> float:
    """Parse a time such as 1998-06-10T12:00Z, or an epoch number, into epoch seconds between the years 1970 and 9999.

    Raises:
        BadParameter: The text is not such a time.
    """
    try:
        at_s = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(str(text))
        except ValueError:
            at_s = math.nan
        else:
            at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not 0.0 <= at_s < _END_OF_TIME_S:
        raise typer.BadParameter(f"{text!r} is not a time; write for example 2026-03-01T12:00:00Z")
    return at_s


def moment_or_ago(text: str | float) -> float:
    """Parse a time as `moment` does, or a duration such as 2h, which means that long ago.

    Returns:
        Epoch seconds, or minus the duration. `since_epoch` turns both into epoch seconds.

    Raises:
        BadParameter: The text is neither.
    """
    with suppress(typer.BadParameter):
        return moment(text)
    with suppress(typer.BadParameter):
        return -seconds(text)
    raise typer.BadParameter(f"{text!r} is not a time; write for example 2h (ago) or 2026-03-01T12:00:00Z")


def since_epoch(given_s: float | None, now_s: float, otherwise_s: float) -> float:
    """Return the epoch seconds of a value from `moment_or_ago`, or `otherwise_s` if no value was given."""
    if given_s is None:
        return otherwise_s
    return given_s if given_s >= 0 else now_s + given_s


def print_line(text: str) -> None:
    """Print a line that may contain text from outside this program, with control characters made safe."""
    typer.echo(printable(text))


def on_screen(document: Any) -> Any:
    """Return a JSON document of the daemon with all its text made safe to print."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, list):
        return [on_screen(item) for item in document]
    if isinstance(document, dict):
        return {printable(key): on_screen(value) for key, value in document.items()}
    return document


def plain_table(*, show_header: bool = True) -> Table:
    """Return a table without lines, with two spaces between its columns."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_header)


def print_whole(console: Console, table: Table) -> None:
    """Print a table of numbers at its full width, without cutting or wrapping: a cut number reads as a different number."""
    from rich.measure import Measurement

    needed = Measurement.get(console, console.options.update_width(_ANY_WIDTH), table).maximum
    before = console.width
    console.width = max(before, needed)
    console.print(table, crop=False)
    console.width = before


def recording(path: Path, kind: str | None) -> Trace:
    """Read a trace. A warning goes to standard error if `--kind` contradicts the manifest beside the file.

    Raises:
        TraceError: The file cannot be used as a trace.
    """
    from autoscaler.traces.reading import manifest_entry, read_trace
    from autoscaler.traces.trace import TraceKind

    trace = read_trace(path, kind=TraceKind(kind) if kind else None)
    noted = (manifest_entry(path) or {}).get("kind", "")
    if kind and noted and noted != kind:
        typer.echo(
            f"{path}: its values are taken as {kind} (--kind), and the manifest.csv beside it says {noted}; "
            "all figures follow from that",
            err=True,
        )
    return trace


def print_json(document: object) -> None:
    """Print a document as JSON for programs; NaN becomes null."""
    from autoscaler.simulator.replay.timeline import jsonable

    typer.echo(json.dumps(jsonable(document), indent=2))


def write_text(file: Path, text: str) -> None:
    """Write a text file.

    Raises:
        ConfigError: The file cannot be written.
    """
    from autoscaler.errors import ConfigError

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from None


def end_of_part(interrupted: Interruption) -> None:
    """End the command with exit code 130 if its run was interrupted, and say that the figures cover a part."""
    if interrupted.pressed:
        typer.echo("interrupted: the figures cover the part that was run", err=True)
        raise typer.Exit(INTERRUPTED)


def utc(at_s: float) -> str:
    """Return epoch seconds as ISO 8601 to the second, or as a bare number if no calendar date exists for them."""
    try:
        return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{at_s:g}"


def forecast_words(median: float, high: float, number: Callable[[float], str]) -> str:
    """Return a phrase that describes a forecast.

    Args:
        median: Median of demand at the lead time, work per second; NaN if there is no forecast.
        high: Its 95 % quantile, work per second.
        number: Formats a number.
    """
    if math.isnan(median):
        return "none: no policy uses one, or there was no data for it"
    return f"{number(median)}/s at the lead time; 95 % of outcomes below {number(high)}/s"


def work(value: float | None) -> str:
    """Return work per second as text for people; a question mark if it is unknown."""
    return "?" if value is None or math.isnan(value) else f"{value:,.0f}"


def unknown_word(word: str, known: Iterable[str], what: str, where: str) -> str:
    """Return a sentence that a name is unknown, with the nearest known name, or all known names if none is near."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(names) or 'none yet'}"
    return f"{where} has no {what} {word}; {hint}"


def _printable_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make the text of a console log line safe to print; JSON lines have their own escapes."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def set_up_logging(style: Literal["console", "json"], level: str) -> None:
    """Send structlog's lines to standard error, for people or for programs; a line that cannot be written is never an error."""
    import structlog

    from autoscaler.cli.log_lines import LogLines
    from autoscaler.clock import SystemClock

    lines = LogLines(sys.stderr, structlog.get_logger(), SystemClock())
    last: Any = structlog.processors.JSONRenderer()
    if style == "console":
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=18)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([] if style == "json" else [_printable_event]),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
