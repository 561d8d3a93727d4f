"""`status`: what the daemon sees, wants and does, once or watched.

Exit codes: 0 all is well, 1 no daemon or an unhealthy one, 2 wrong usage, 130 interrupted, which is how `--watch`
ends.

Rules of this file: everything shown comes from the daemon's own answer at /api/v1/status. Watching goes on while
there is no daemon, and says so, since daemons are restarted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from autoscaler.cli.output import FAILED, errors_in_words, seconds, utc, work
from autoscaler.words import counted

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType

Show: TypeAlias = Callable[[dict[str, Any] | None, str], None]
"""Takes the daemon's answer, or None and why there is none."""

_LATELY_S = 600.0
_NUMBERS = ("demand/s", "95 %/s", "desired", "serve", "start", "warm", "short/s", "cost")
_ANY_WIDTH = 10_000
PATIENCE_S = 30.0
"""A daemon of a thousand fleets may take seconds to answer while it decides."""

JSON_OPTION = typer.Option("--json", help="Print JSON for programs; watched, one document per line.")


def status(
    url: Annotated[
        str | None, typer.Option(help="Address of the daemon (default: from the settings).", metavar="URL")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")
    ] = False,
    every_s: Annotated[
        float | None,
        typer.Option("--every", parser=seconds, help="How often, watched (default: 2s).", metavar="DURATION"),
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", parser=seconds, help="How long an answer may take.", metavar="DURATION"),
    ] = PATIENCE_S,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what the daemon sees, wants and does now, per fleet."""
    from autoscaler.settings import load_settings

    if every_s is not None and not watch:
        raise typer.BadParameter("say --watch too", param_hint="--every")
    with errors_in_words("status"):
        settings = load_settings()
        base = url or _own_address(settings.http_host, settings.http_port)
        if watch:
            _check_address(base)
            with _screen() if not as_json else nullcontext(_json_lines()) as show:
                import asyncio

                asyncio.run(_watch(base, every_s or 2.0, show, timeout_s))
        found = _fetch(base, timeout_s)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        from rich.console import Console

        Console(highlight=False).print(_picture(found), soft_wrap=True)
    if not found["healthy"]:
        raise typer.Exit(FAILED)


def _own_address(host: str, port: int) -> str:
    """Where a daemon of these settings is reached from this machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  all addresses: any will do
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _fetch(base: str, timeout_s: float) -> dict[str, Any]:
    import http.client
    import urllib.error
    import urllib.request

    from autoscaler.errors import DaemonError

    _check_address(base)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base.rstrip('/')}/api/v1/status", timeout=timeout_s) as answer:
            found: Any = json.load(answer)
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError):
        found = None
    except TimeoutError:  # somebody took the question: where nobody does, urllib wraps it
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
    return found


def _check_address(base: str) -> None:
    from autoscaler.errors import DaemonError

    if not base.startswith(("http://", "https://")):
        msg = f"{base} is not an address; write for example http://127.0.0.1:9412"
        raise DaemonError(msg)


# ── watching ────────────────────────────────────────────────────────────────────────────────────────────


async def _watch(base: str, every_s: float, show: Show, timeout_s: float) -> None:
    """Ask for ever; `show` gets the answer, or None and why there is none."""
    import asyncio

    from autoscaler.clock import SystemClock
    from autoscaler.errors import DaemonError

    clock = SystemClock()
    next_s = clock.monotonic()
    while True:
        try:
            show(await asyncio.to_thread(_fetch, base, timeout_s), "")
        except DaemonError as error:
            show(None, str(error))
        next_s = max(next_s + every_s, clock.monotonic())
        await clock.sleep_until(next_s)


def _json_lines() -> Show:
    """One document for each tick, and for each change of why there is none."""
    before: list[object] = [None]

    def show(found: dict[str, Any] | None, trouble: str) -> None:
        key = (found["tick"], found["healthy"]) if found else trouble
        if key != before[0]:
            before[0] = key
            typer.echo(json.dumps(found or {"error": trouble}))

    return show


@contextmanager
def _screen() -> Iterator[Show]:
    """In place in a terminal, one line per change elsewhere."""
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

    # Left standing at the end, so that the last picture can be read.
    with Live(console=console, auto_refresh=False) as live:
        yield show


def _change_lines() -> Show:
    before: dict[str, object] = {}

    def show(found: dict[str, Any] | None, trouble: str) -> None:
        lines = _lines(found) if found else {"": (trouble, trouble)}
        stamp = utc(found["at_s"]) if found else "-"
        for name, (key, line) in lines.items():
            if before.get(name) != key:
                typer.echo(f"{stamp}  {line}")
        before.clear()
        before.update({name: key for name, (key, _) in lines.items()})

    return show


def _lines(found: dict[str, Any]) -> dict[str, tuple[object, str]]:
    """Lines by what they are about, each with what must change for it to be told again."""
    lines: dict[str, tuple[object, str]] = {
        f"unhealthy {text}": (text, f"unhealthy: {text}") for text in found["problems"]
    }
    lines |= {f"policies {text}": (text, f"policies: {text}") for text in _policy_troubles(found)}
    lines |= {f"journal {text}": (text, f"journal: {text}") for text in _journal_troubles(found)}
    lines |= {f"operators {text}": (text, f"operators: {text}") for text in _operations(found)}
    lines |= {f"push {text}": (text, f"push: {text}") for text in _push_troubles(found)}
    for fleet in found["fleets"]:
        d, name = fleet["decision"], fleet["fleet"]
        if d:
            counts = f"{d['in_service']} serve, {d['starting']} start, {d['stopped']} warm"
            key = (counts, d["desired"], d["start"], d["stop"], d["provision"])
            lines[name] = key, f"{name}: {counts}: {d['sentence']}"
        for what, error in _troubles(fleet):
            lines[f"{name} {what}"] = error, f"{name}: {what}: {error}"
    return lines


# ── the picture ─────────────────────────────────────────────────────────────────────────────────────────


def _picture(found: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    said = []
    for fleet in found["fleets"]:
        if fleet["decision"]:
            said.append(Text(f"{fleet['fleet']}: {fleet['decision']['sentence']}"))
        if missed := fleet.get("missed_warm_starts_day"):
            vms = counted(missed, "VM was", "VMs were")
            text = f"{fleet['fleet']}: {vms} made from nothing in the last 24 h, since the warm pool had none"
            said.append(Text(text, style="yellow"))
        if worth := _worth(fleet):
            said.append(Text(f"{fleet['fleet']}: {worth}"))
        said += [
            Text(f"{fleet['fleet']}: {what}: {error}", style="yellow") for what, error in _troubles(fleet)
        ]
    said += [Text(f"policies: {text}", style="red") for text in _policy_troubles(found)]
    said += [Text(f"journal: {text}", style="red") for text in _journal_troubles(found)]
    said += [Text(f"operators: {text}", style="yellow") for text in _operations(found)]
    said += [Text(f"push: {text}", style="yellow") for text in _push_troubles(found)]
    said += [Text(f"unhealthy: {problem}", style="red") for problem in found["problems"]]
    return Group(Text(f"{utc(found['at_s'])}, tick {found['tick']}"), _Numbers(found), *said)


class _Numbers:
    """A row of numbers per fleet, or a sentence of them where the terminal has no room for the row: none is ever cut."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._rows = [_cells(fleet) for fleet in found["fleets"]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.measure import Measurement
        from rich.table import Table
        from rich.text import Text

        table = Table("fleet", "acts", box=None, pad_edge=False)
        for name in _NUMBERS:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self._rows:
            table.add_row(*row)
        wide = options.update_width(max(options.max_width, _ANY_WIDTH))
        if Measurement.get(console, wide, table).maximum <= options.max_width:
            yield table
            return
        for fleet, acts, *numbers in self._rows:
            told = ", ".join(f"{name} {number}" for name, number in zip(_NUMBERS, numbers, strict=True))
            yield Text(f"{fleet}: acts {acts}, {told}")


def _cells(fleet: dict[str, Any]) -> tuple[str, ...]:
    d = fleet["decision"] or {}
    return (
        fleet["fleet"],
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
    """Why the policies in the folder are not those in use, where they are not."""
    policies = found.get("policies", {})
    error = policies.get("error", "")
    if error and policies.get("partial"):
        return [f"nothing is done for the fleets of what cannot be used in the folder: {error}"]
    return [f"the last good ones stay in use, since the folder's cannot be used: {error}"] if error else []


def _journal_troubles(found: dict[str, Any]) -> list[str]:
    """Why nothing is done, where nothing can be recorded."""
    error = found.get("journal", {}).get("error", "")
    return [f"nothing is started or stopped until it can be written: {error}"] if error else []


def _push_troubles(found: dict[str, Any]) -> list[str]:
    """What was lately refused of what is pushed, and what to do."""
    push = found.get("push") or {}
    told = [push["token_file_problem"]] if push.get("token_file_problem") else []
    return told + [
        each["text"]
        for each in push.get("refused", ())
        if found["at_s"] - each["last_at_s"] < _LATELY_S and each["text"] not in told
    ]


def _operations(found: dict[str, Any]) -> list[str]:
    """What operators have in force."""
    told: list[str] = found.get("operations", {}).get("sentences", [])
    return told


def _worth(fleet: dict[str, Any]) -> str:
    """What the warm pool is worth, once that was measured."""
    pool = fleet.get("learned", {}).get("warm_pool", {})
    return f"warm pool: {pool['sentence']}" if pool.get("saved_s") is not None else ""


def _troubles(fleet: dict[str, Any]) -> list[tuple[str, str]]:
    told = [("metrics", fleet["source_error"]), ("list of VMs", fleet["listing_error"])]
    told.append(("load balancer", fleet.get("balancer_error", "")))
    if other := fleet.get("leased_to", ""):
        told.append(("held", f"the daemon {other} acts on it"))
    told.append(("condition", fleet.get("condition", {}).get("sentence", "")))
    if unsettled := len(fleet.get("unsettled_actions", ())):
        calls = counted(unsettled, "call")
        told.append(
            ("outcomes", f"what became of {calls} is not known until a listing tells; nothing is repeated")
        )
    return [(what, error) for what, error in told if error]
