"""`status`: what the daemon sees, wants and does, once or continuously.

Exit codes: 0 all is well, 1 no daemon or an unhealthy one, 2 wrong usage, 130 interrupted (the usual end of
`--watch`).

Rules of this file: everything shown comes from the daemon's answer at /api/v1/status. While no daemon answers,
`--watch` says so and keeps asking, because daemons are restarted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.output import FAILED, errors_in_words, on_screen, seconds, unknown_word, utc, work
from autoscaler.words import counted, some

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType

Show: TypeAlias = Callable[[dict[str, Any] | None, str], None]
"""Displays an answer of the daemon. Called with None and the reason if there was no answer."""

_LATELY_S = 600.0
_NAMES_SHOWN = 6
_SHORT = "short"
_NUMBERS = ("demand/s", "95 %/s", "desired", "serve", "start", "warm", "short/s", "cost")
_NARROWER = ((), ("95 %/s",), ("95 %/s", "cost"))
"""Columns to leave out. Each set is tried in turn until the table fits the terminal."""
_ANY_WIDTH = 10_000
PATIENCE_S = 30.0
"""Seconds to wait for an answer: a daemon of a thousand fleets may need several to answer while it decides."""

JSON_OPTION = typer.Option("--json", help="Print JSON for programs; with --watch, one document per line.")


def status(
    fleets: Annotated[
        list[str] | None, typer.Argument(help="Only these fleets (default: all).", metavar="[FLEET]...")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Address of the daemon (default: from the settings).", metavar="URL")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    every_s: Annotated[
        float | None,
        typer.Option(
            "--every", parser=seconds, help="Refresh interval with --watch (default: 2s).", metavar="DURATION"
        ),
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", parser=seconds, help="How long to wait for an answer.", metavar="DURATION"),
    ] = PATIENCE_S,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what the daemon sees, wants and does now: first what needs attention, then a line per fleet, then why."""
    from autoscaler.settings import load_settings

    if every_s is not None and not watch:
        raise typer.BadParameter("pass --watch too", param_hint="--every")
    with errors_in_words("status"):
        settings = load_settings()
        base = url or own_address(settings.http_host, settings.http_port)
        if watch:
            _check_address(base)
            with _screen() if not as_json else nullcontext(_json_lines()) as show:
                import asyncio

                asyncio.run(_watch(base, every_s or 2.0, show, timeout_s, fleets))
        found = fetch(base, timeout_s, fleets)
    if as_json:
        typer.echo(json.dumps({"version": FORM, **found}, indent=2))
    else:
        from rich.console import Console

        Console(highlight=False).print(_picture(found), soft_wrap=True)
    if not found["healthy"]:
        raise typer.Exit(FAILED)


def own_address(host: str, port: int) -> str:
    """Return the URL at which a daemon with these settings is reached from this machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  all addresses: any will do
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def fetch(base: str, timeout_s: float, fleets: list[str] | None = None) -> dict[str, Any]:
    """Return the daemon's answer, limited to the named fleets if any are named.

    Raises:
        DaemonError: There is no usable answer, or the daemon does not have one of the fleets.
    """
    import http.client
    import urllib.error
    import urllib.request

    from autoscaler.errors import DaemonError

    _check_address(base)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base.rstrip('/')}/api/v1/status", timeout=timeout_s) as answer:
            found: Any = on_screen(json.load(answer))
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError):
        found = None
    except TimeoutError:  # connected, but no answer in time; urllib wraps a timeout while connecting
        msg = f"the daemon at {base} has not answered within {timeout_s:g} s; it may be busy: wait longer with --timeout"
        raise DaemonError(msg) from None
    except OSError as error:
        why = getattr(error, "reason", error)
        told = getattr(why, "strerror", None) or why
        msg = f"no daemon answers at {base} ({told}); start it with `autoscaler run`, or give its --url"
        raise DaemonError(msg) from None
    if not isinstance(found, dict) or not {"healthy", "problems", "fleets"} <= found.keys():
        msg = f"what answers at {base} is not an autoscaler of this version; give the --url of yours"
        raise DaemonError(msg)
    for name in fleets or ():
        known = [fleet["fleet"] for fleet in found["fleets"]]
        if name not in known:
            raise DaemonError(unknown_word(name, known, "fleet", f"the daemon at {base}"))
    if fleets:
        found["fleets"] = [fleet for fleet in found["fleets"] if fleet["fleet"] in fleets]
    return found


def _check_address(base: str) -> None:
    from autoscaler.errors import DaemonError

    if not base.startswith(("http://", "https://")):
        msg = f"{base} is not an address; write for example http://127.0.0.1:9412"
        raise DaemonError(msg)


# ── watching ────────────────────────────────────────────────────────────────────────────────────────────


async def _watch(
    base: str, every_s: float, show: Show, timeout_s: float, fleets: list[str] | None = None
) -> None:
    """Ask the daemon at a fixed interval until interrupted, and pass each answer to `show`."""
    import asyncio

    from autoscaler.clock import SystemClock
    from autoscaler.errors import DaemonError

    clock = SystemClock()
    next_s = clock.monotonic()
    while True:
        try:
            show(await asyncio.to_thread(fetch, base, timeout_s, fleets), "")
        except DaemonError as error:
            show(None, str(error))
        next_s = max(next_s + every_s, clock.monotonic())
        await clock.sleep_until(next_s)


def _json_lines() -> Show:
    """Return a `Show` that prints one JSON document per tick, and one whenever the reason for a missing answer changes."""
    before: list[object] = [None]

    def show(found: dict[str, Any] | None, trouble: str) -> None:
        key = (found["tick"], found["healthy"]) if found else trouble
        if key != before[0]:
            before[0] = key
            typer.echo(json.dumps({"version": FORM, **(found or {"error": trouble})}))

    return show


@contextmanager
def _screen() -> Iterator[Show]:
    """Context with a `Show` that redraws a terminal in place; elsewhere it prints one line per change."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        yield _change_lines()
        return
    last: list[Group] = []

    def show(found: dict[str, Any] | None, trouble: str) -> None:
        if found is not None:
            last[:] = [_picture(found)]
        live.update(Group(*last, *([] if found else [Text(trouble, style="red")])), refresh=True)

    # The last picture stays on screen after Ctrl-C so that it can be read.
    with Live(console=console, auto_refresh=False) as live:
        yield show


def _change_lines() -> Show:
    before: dict[str, object] = {}

    def show(found: dict[str, Any] | None, trouble: str) -> None:
        lines = status_lines(found) if found else {"": (trouble, trouble)}
        stamp = utc(found["at_s"]) if found else "-"
        for name, (key, line) in lines.items():
            if before.get(name) != key:
                typer.echo(f"{stamp}  {line}")
        before.clear()
        before.update({name: key for name, (key, _) in lines.items()})

    return show


def status_lines(found: dict[str, Any]) -> dict[str, tuple[object, str]]:
    """Return the lines to print, by subject. Each has a key; the line is printed again only when its key changes."""
    lines: dict[str, tuple[object, str]] = {
        f"unhealthy {text}": (text, f"unhealthy: {text}") for text in found["problems"]
    }
    lines |= {f"policies {text}": (text, f"policies: {text}") for text in _policy_troubles(found)}
    lines |= {f"journal {text}": (text, f"journal: {text}") for text in _journal_troubles(found)}
    lines |= {f"place {error}": (error, f"places: {text}") for error, text in _old_places(found)}
    lines |= {f"operators {text}": (text, f"operators: {text}") for text in _operations(found)}
    lines |= {f"push {text}": (text, f"push: {text}") for text in _push_troubles(found)}
    for fleet in found["fleets"]:
        d, name = fleet["decision"], fleet["fleet"]
        if d:
            counts = f"{d['in_service']} serve, {d['starting']} start, {d['stopped']} warm"
            key = (counts, d["desired"], d["start"], d["stop"], d["provision"])
            lines[name] = key, f"{name}: {counts}: {d['sentence']}"
        for what, error in _troubles(fleet):
            # The size of a shortage changes at every tick, so it is not part of the key.
            same = what if what == _SHORT else error
            lines[f"{name} {what}"] = same, f"{name}: {what}: {error}"
    return lines


# ── the picture ─────────────────────────────────────────────────────────────────────────────────────────


def _picture(found: dict[str, Any]) -> Group:
    """Return the whole screen. Troubles come first, because with many fleets the rest may be below the screen's end."""
    from rich.console import Group
    from rich.text import Text

    fleets = found["fleets"]
    head = [f"{utc(found['at_s'])}, tick {found['tick']}", *([_sum(fleets)] if len(fleets) > 1 else [])]
    first = [Text(f"unhealthy: {problem}", style="red") for problem in found["problems"]]
    first += [Text(f"policies: {text}", style="red") for text in _policy_troubles(found)]
    first += [Text(f"journal: {text}", style="red") for text in _journal_troubles(found)]
    first += [Text(f"places: {text}", style="red") for _, text in _old_places(found)]
    first += [Text(text, style="yellow") for text in _alike(fleets)]
    first += [Text(f"push: {text}", style="yellow") for text in _push_troubles(found)]
    first += [Text(f"operators: {text}", style="yellow") for text in _operations(found)]
    said = []
    for fleet in fleets:
        if fleet["decision"]:
            said.append(Text(f"{fleet['fleet']}: {fleet['decision']['sentence']}"))
        if worth := _worth(fleet):
            said.append(Text(f"{fleet['fleet']}: {worth}"))
    return Group(*(Text(line) for line in head), *first, _Numbers(found), *said)


def _sum(fleets: list[dict[str, Any]]) -> str:
    """Return one line that sums up all fleets that act; fleets in shadow are not counted."""
    acting = [fleet for fleet in fleets if fleet["act"]]
    decided = [fleet["decision"] for fleet in acting if fleet["decision"]]
    serve, start, warm = (sum(d[key] for d in decided) for key in ("in_service", "starting", "stopped"))
    told = (
        f"{len(acting)} of {counted(len(fleets), 'fleet')} act: {counted(serve, 'VM serves', 'VMs serve')}, "
    )
    return (
        f"{told}{start} start, {warm} wait stopped; cost {sum(fleet['cost_total'] for fleet in acting):,.2f}"
    )


def _alike(fleets: list[dict[str, Any]]) -> list[str]:
    """Return one line per trouble with all fleets that have it: shortage first, then by number of fleets."""
    of: dict[str, list[str]] = {}
    short = sorted((each for each in fleets if _short_of(each) > 0), key=_short_of, reverse=True)
    for fleet in fleets:
        for what, error in (*_troubles(fleet), *_missed(fleet)):
            if what != _SHORT:
                of.setdefault(f"{what}: {error}", []).append(fleet["fleet"])
    shown = sorted(of.items(), key=lambda each: -len(each[1]))
    told = [f"{some(names, _NAMES_SHOWN)}: {text}" for text, names in shown]
    if short:
        each_of = [f"{fleet['fleet']} of {work(_short_of(fleet))}/s" for fleet in short]
        told.insert(
            0, f"{counted(len(short), 'fleet is', 'fleets are')} short: {some(each_of, _NAMES_SHOWN)}"
        )
    return told


def _short_of(fleet: dict[str, Any]) -> float:
    """Return the fleet's shortage, work per second; 0 in shadow, where the shortage is hypothetical."""
    return float((fleet["decision"] or {}).get("shortage") or 0.0) if fleet["act"] else 0.0


class _Numbers:
    """A table with a row of numbers per fleet, as wide as the terminal allows.

    Columns are left out until the table fits. If it never fits, each fleet becomes a sentence. Numbers are never cut.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self._places = any(fleet.get("provider") for fleet in found["fleets"])
        self._rows = [_cells(fleet, places=self._places) for fleet in found["fleets"]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.measure import Measurement
        from rich.table import Table
        from rich.text import Text

        first = ("fleet", "place", "acts") if self._places else ("fleet", "acts")
        wide = options.update_width(max(options.max_width, _ANY_WIDTH))
        for left_out in _NARROWER:
            kept = [at for at, name in enumerate(_NUMBERS) if name not in left_out]
            table = Table(*first, box=None, pad_edge=False)
            for at in kept:
                table.add_column(_NUMBERS[at], justify="right", no_wrap=True)
            for row in self._rows:
                words, numbers = row[: len(first)], row[len(first) :]
                table.add_row(*words, *(numbers[at] for at in kept))
            if Measurement.get(console, wide, table).maximum <= options.max_width:
                yield table
                return
        for fleet, *cells in self._rows:
            named = zip((*first[1:], *_NUMBERS), cells, strict=True)
            yield Text(f"{fleet}: {', '.join(f'{name} {cell}' for name, cell in named)}")


def _cells(fleet: dict[str, Any], *, places: bool) -> tuple[str, ...]:
    d = fleet["decision"] or {}
    return (
        fleet["fleet"],
        *([fleet.get("provider", "")] if places else []),
        "yes" if fleet["act"] else "shadow",
        work(d.get("demand")),
        work(d.get("forecast_hi")),
        str(d.get("desired", "?")),
        str(d.get("in_service", "?")),
        str(d.get("starting", "?")),
        f"{d.get('stopped', '?')} of {d.get('warm_target', '?')}",
        work(d.get("shortage")),
        f"{fleet['cost_total']:,.2f}",
    )


def _policy_troubles(found: dict[str, Any]) -> list[str]:
    """Return why the policies in use differ from those in the folder; empty if they are the same."""
    policies = found.get("policies", {})
    error = policies.get("error", "")
    if error and policies.get("partial"):
        return [f"fleets whose policies cannot be used are left out in the folder: {error}"]
    return (
        [f"the last good ones stay in use, since those in the folder cannot be used: {error}"]
        if error
        else []
    )


def _journal_troubles(found: dict[str, Any]) -> list[str]:
    """Return why the journal cannot be written, which keeps the daemon from acting; empty if it can."""
    error = found.get("journal", {}).get("error", "")
    return [f"nothing is started or stopped until it can be written: {error}"] if error else []


def _old_places(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the error and a sentence for each place without a recent complete listing of VMs."""
    places = found.get("providers", ())
    return [(each["error"], each["sentence"]) for each in places if each["sentence"]]


def _push_troubles(found: dict[str, Any]) -> list[str]:
    """Return what is wrong with pushed samples: an unusable token file, and what was refused lately."""
    push = found.get("push") or {}
    told = [push["token_file_problem"]] if push.get("token_file_problem") else []
    return told + [
        each["text"]
        for each in push.get("refused", ())
        if found["at_s"] - each["last_at_s"] < _LATELY_S and each["text"] not in told
    ]


def _operations(found: dict[str, Any]) -> list[str]:
    """Return a sentence for each pause and override in force."""
    told: list[str] = found.get("operations", {}).get("sentences", [])
    return told


def _worth(fleet: dict[str, Any]) -> str:
    """Return what the warm pool has saved, as a sentence; empty until it has been measured."""
    pool = fleet.get("learned", {}).get("warm_pool", {})
    return f"warm pool: {pool['sentence']}" if pool.get("saved_s") is not None else ""


def _missed(fleet: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how many VMs were provisioned in the last 24 hours because the warm pool was empty."""
    if missed := fleet.get("missed_warm_starts_day"):
        vms = counted(missed, "VM was", "VMs were")
        return [("warm pool", f"{vms} made from nothing in the last 24 h, since it had none")]
    return []


def _troubles(fleet: dict[str, Any]) -> list[tuple[str, str]]:
    short = _short_of(fleet)
    told = [(_SHORT, f"{work(short)}/s of its demand find no VM" if short > 0 else "")]
    if lacks := fleet["act"] and fleet.get("shortage"):
        told.append(("not available", f"{counted(lacks['missing'], 'VM')}: {lacks['why']}"))
    told += [("metrics", fleet["source_error"]), ("list of VMs", fleet["listing_error"])]
    told.append(("load balancer", fleet.get("balancer_error", "")))
    if other := fleet.get("leased_to", ""):
        told.append(("held", f"the daemon {other} acts on it"))
    told.append(("condition", fleet.get("condition", {}).get("sentence", "")))
    if unsettled := len(fleet.get("unsettled_actions", ())):
        calls = counted(unsettled, "call")
        told.append(
            ("outcomes", f"what became of {calls} is not known until a listing shows it; nothing is repeated")
        )
    return [(what, error) for what, error in told if error]
