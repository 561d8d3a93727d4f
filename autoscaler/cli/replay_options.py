"""Options shared by replays, comparisons, sweeps and recommendations: the part of a trace, and the properties of VMs.

Typer turns each parameter of a command into an option. `with_options` replaces one parameter by the fields of a dataclass,
so that shared options are declared once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from autoscaler.cli.output import moment, seconds, share

if TYPE_CHECKING:
    from autoscaler.cloud.faults import Fault
    from autoscaler.simulator.replay.preparing import Wanted

KIND = Annotated[
    Literal["count", "gauge"] | None,
    typer.Option(help="Kind of the trace's values, unless a manifest.csv beside it says."),
]
SCALE = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="Scale the trace so that its peak needs this many VMs."),
]
VMS = Annotated[
    int | None,
    typer.Option(min=1, max=20_000, help="VMs that exist (default: enough for the peak, within the bounds)."),
]
TICK = Annotated[
    float | None,
    typer.Option(
        "--tick",
        parser=seconds,
        help="Time between decisions (default: the trace's interval).",
        metavar="DURATION",
    ),
]
FROM = Annotated[
    float | None,
    typer.Option("--from", parser=moment, help="Time in the trace to start at.", metavar="TIME"),
]
TO = Annotated[
    float | None, typer.Option("--to", parser=moment, help="Time in the trace to end at.", metavar="TIME")
]
FAULTS = Annotated[
    Path | None, typer.Option(help="Schedule of faults of the cloud (YAML or JSON).", metavar="FILE")
]
SEED = Annotated[int, typer.Option(min=0, help="Seed of all random draws.")]
OUT = Annotated[
    Path | None,
    typer.Option(help="Write report.html, report.json, the timeline and the journal here.", metavar="DIR"),
]
FORCE = Annotated[bool, typer.Option("--force", help="Replace an earlier run in --out.")]
NO_PAGE = Annotated[bool, typer.Option("--no-page", help="Skip report.html, which needs plotly.")]
AS_JSON = Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Options for the traffic and the VMs of a replay; for None, a value is chosen later."""

    kind: KIND = None
    scale_to_vms: SCALE = None
    vms: VMS = None
    tick_s: TICK = None
    begin_s: FROM = None
    end_s: TO = None
    warm_up_s: Annotated[
        float | None,
        typer.Option(
            "--warm-up",
            parser=seconds,
            help="Time at the start that is not scored (default: 10 ticks, but at least 5 min).",
            metavar="DURATION",
        ),
    ] = None
    start_time_s: Annotated[
        float | None,
        typer.Option(
            "--start-time",
            parser=seconds,
            help="Mean time from start request to in service (default: vm.start_time).",
            metavar="DURATION",
        ),
    ] = None
    start_p95_s: Annotated[
        float | None,
        typer.Option(
            "--start-p95",
            parser=seconds,
            help="95 of 100 starts take no longer (log-normal).",
            metavar="DURATION",
        ),
    ] = None
    start_failure: Annotated[
        float, typer.Option(parser=share, help="Share of starts that fail, for example 5%.", metavar="SHARE")
    ] = 0.0
    provision_time_s: Annotated[
        float | None,
        typer.Option(
            "--provision-time",
            parser=seconds,
            help="Time until a VM made from nothing serves (default: objective.provision_time).",
            metavar="DURATION",
        ),
    ] = None
    metric_lag_s: Annotated[
        float | None,
        typer.Option(
            "--metric-lag", parser=seconds, help="Delay until metrics are known.", metavar="DURATION"
        ),
    ] = None

    def wanted(self, seed: int, faults: tuple[Fault, ...] = ()) -> Wanted:
        """Return these options in the form that replays take."""
        from autoscaler.simulator.replay.preparing import Wanted

        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "kind"}
        return Wanted(**given, faults=faults, seed=seed)


def with_options(of: type, name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each field of a dataclass, in place of the parameter with this name."""
    options = get_type_hints(of, include_extras=True)
    names = {field.name for field in fields(of)}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name != name:
            shown.append(parameter)
            continue
        shown += [
            inspect.Parameter(
                field.name, parameter.kind, default=field.default, annotation=options[field.name]
            )
            for field in fields(of)
        ]

    @wraps(command)
    def called(**given: Any) -> None:
        command(**{name: of(**{each: given.pop(each) for each in names}), **given})

    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in shown}
    return called


with_played = partial(with_options, Played, "played")
