"""What all commands share: exit codes, error sentences, option types, log setup.

Rules of this file: nothing heavy is imported at the top, so that `--help` stays quick.
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
"""The command could not do what it was asked; the reason is on standard error."""
INTERRUPTED = 130
_END_OF_TIME_S = 253_402_300_800.0


@contextmanager
def errors_in_words(command: str) -> Iterator[None]:
    """End a command with one message and exit code 1 instead of a traceback."""
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
    """An option value such as 40s, 5m or 1h30m; numbers are an option's own default."""
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
    """An option value such as 90% or 0.9."""
    try:
        value = float(text.removesuffix("%")) / 100 if isinstance(text, str) and "%" in text else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not a share; write for example 90%")
    return value


def moment(text: str | float) -> float:
    """An option value such as 1998-06-10T12:00Z or an epoch number: epoch seconds, from 1970 to 9999."""
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
    """An option value such as 2h, which is so long ago, or a moment; `since_epoch` tells them apart."""
    with suppress(typer.BadParameter):
        return moment(text)
    with suppress(typer.BadParameter):
        return -seconds(text)
    raise typer.BadParameter(f"{text!r} is not a time; write for example 2h (ago) or 2026-03-01T12:00:00Z")


def since_epoch(given_s: float | None, now_s: float, otherwise_s: float) -> float:
    """Epoch seconds of a `moment_or_ago`; the other value where none was given."""
    if given_s is None:
        return otherwise_s
    return given_s if given_s >= 0 else now_s + given_s


def say(text: str) -> None:
    """Print a line that may contain text from outside."""
    typer.echo(printable(text))


def on_screen(document: Any) -> Any:
    """A daemon's answer, with all text made safe to print."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, list):
        return [on_screen(item) for item in document]
    if isinstance(document, dict):
        return {printable(key): on_screen(value) for key, value in document.items()}
    return document


def plain_table(*, show_header: bool = True) -> Table:
    """A table without lines, two spaces between its columns."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_header)


def print_whole(console: Console, table: Table) -> None:
    """Print a table of numbers without cutting any: a cut number is another number, and a wrapped line is none."""
    from rich.measure import Measurement

    needed = Measurement.get(console, console.options.update_width(_ANY_WIDTH), table).maximum
    before = console.width
    console.width = max(before, needed)
    console.print(table, crop=False)
    console.width = before


def recording(path: Path, kind: str | None) -> Trace:
    """The trace to run on. Where `--kind` says something else than the manifest beside it, standard error tells.

    Raises:
        TraceError: It cannot be used.
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
    """Print a document for programs; a number that is not known becomes null."""
    from autoscaler.simulator.replay.timeline import jsonable

    typer.echo(json.dumps(jsonable(document), indent=2))


def write_text(file: Path, text: str) -> None:
    """Write a file.

    Raises:
        ConfigError: It cannot be written.
    """
    from autoscaler.errors import ConfigError

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from None


def end_of_part(interrupted: Interruption) -> None:
    """End a command whose run somebody ended before its time."""
    if interrupted.pressed:
        typer.echo("interrupted: the figures cover the part that was run", err=True)
        raise typer.Exit(INTERRUPTED)


def utc(at_s: float) -> str:
    """Epoch seconds as ISO 8601 to the second; the bare number where no calendar reaches."""
    try:
        return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{at_s:g}"


def forecast_words(median: float, high: float, number: Callable[[float], str]) -> str:
    """What was expected, in words.

    Args:
        median: Of demand at the lead time, work per second; NaN for none.
        high: That 95 of 100 outcomes lie below.
        number: Writes one.
    """
    if math.isnan(median):
        return "none: no policy uses one, or there was no data for it"
    return f"{number(median)}/s at the lead time; 95 % of outcomes below {number(high)}/s"


def work(value: float | None) -> str:
    """Work per second for people; a question mark where unknown."""
    return "?" if value is None or math.isnan(value) else f"{value:,.0f}"


def unknown_word(word: str, known: Iterable[str], what: str, where: str) -> str:
    """A sentence that there is no such thing, and the nearest one, or all of them."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(names) or 'none yet'}"
    return f"{where} has no {what} {word}; {hint}"


def _printable_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A line for people; JSON has its own escapes."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def set_up_logging(style: Literal["console", "json"], level: str) -> None:
    """Send structlog's lines to standard error, for people or for programs; what cannot be written there ends nothing."""
    import structlog

    from autoscaler.cli.log_lines import LogLines

    lines = LogLines(sys.stderr, structlog.get_logger())
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
