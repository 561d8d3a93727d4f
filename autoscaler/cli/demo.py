"""`demo`: the real daemon against an embedded EC2, on an accelerated clock.

Real: the daemon, its decisions, the journal, aiobotocore, and the EC2 protocol to an endpoint in a separate process.
Simulated: the VMs behind that endpoint, and the traffic. The fleet starts with what it learned in a simulated week
(`demo_week`). At the end the run is compared with simpler ways to serve the same demand.

Exit codes: 0 it ran (also if ended by Ctrl-C), 1 it could not run, 2 wrong usage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from autoscaler.cli.output import errors_in_words, moment, print_json, seconds, set_up_logging
from autoscaler.cli.replay_options import FAULTS, with_options


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The options of the command line."""

    trace: Annotated[
        Path | None,
        typer.Option(
            help="Play this recording instead of a generated day (.csv, .csv.gz, .parquet).", metavar="FILE"
        ),
    ] = None
    kind: Annotated[
        Literal["count", "gauge"] | None,
        typer.Option(help="Kind of its values, unless a manifest.csv beside it says."),
    ] = None
    scale_to_vms: Annotated[
        int, typer.Option(min=1, max=10_000, help="Scale a recording so that its peak needs this many VMs.")
    ] = 50
    begin_s: Annotated[
        float | None,
        typer.Option(
            "--begin", parser=moment, help="Time to start at (generated day: 09:30).", metavar="TIME"
        ),
    ] = None
    end_s: Annotated[
        float | None, typer.Option("--end", parser=moment, help="Time to end at.", metavar="TIME")
    ] = None
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy file (default: simulations/demo/web.yaml).", metavar="FILE"),
    ] = None
    vms: Annotated[
        int, typer.Option(min=1, max=20_000, help="Number of VMs that exist at the start, stopped.")
    ] = 60
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=100_000,
            help="Seconds in the demo per real second (default: 400, or as fast as this machine can).",
        ),
    ] = None
    cold: Annotated[
        bool, typer.Option("--cold", help="Start as on a fleet's first day, without the week before.")
    ] = False
    tick_s: Annotated[
        float, typer.Option("--tick", parser=seconds, help="Time between decisions.", metavar="DURATION")
    ] = 10.0
    for_s: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=seconds,
            help="Stop after this much real time, for example 40s.",
            metavar="DURATION",
        ),
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="Write timeline.csv, report.json and the journal here.", metavar="DIR")
    ] = None
    faults: FAULTS = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of traffic and cloud.")] = 1
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of /metrics and /healthz; 0 takes a free one.")
    ] = 0


@partial(with_options, DemoOptions, "options")
def demo(
    options: DemoOptions = DemoOptions(),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report at the end as JSON instead of a table.")
    ] = False,
) -> None:
    """Watch a real daemon start and stop 60 VMs through the EC2 protocol, with the memory of the week before.

    The summary compares it with a plain reactive rule and with always-on VMs, at the same prices.
    """
    import asyncio

    from autoscaler.cli.demo_run import prepare
    from autoscaler.cli.demo_run import run as run_demo
    from autoscaler.cli.demo_screen import Screen, print_summary
    from autoscaler.cli.demo_summary import summarise

    set_up_logging("console", "error")
    with errors_in_words("demo"):
        prepared = prepare(options)
        screen = Screen(prepared, quiet=as_json)
        finished = asyncio.run(run_demo(prepared, screen))
        report = summarise(finished, screen.progress)
        if as_json:
            print_json(report)
        else:
            print_summary(report, prepared, finished)
