"""`trace record`: reads a running fleet's source for a while, without a daemon, into a trace.

Rules of this file: wiring and messages only; sampling is in `simulator/traffic/sampling`. Ctrl-C keeps what was recorded.
"""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.options import ENDPOINT_URL, JSON, MANIFEST, NEW_TRACE, OVERWRITE, REGION
from autoscaler.cli.output import INTERRUPTED, errors_in_words, seconds
from autoscaler.cli.trace import check_out, write

if TYPE_CHECKING:
    from autoscaler.config.policy import Policy
    from autoscaler.ports import Clock, Provider, Vm
    from autoscaler.settings import Settings
    from autoscaler.simulator.traffic.sampling import Sampled


def record(
    policy: Annotated[
        Path, typer.Argument(help="Policy of the fleet whose signal to read.", metavar="POLICY")
    ],
    out: NEW_TRACE,
    for_s: Annotated[
        float, typer.Option("--for", parser=seconds, help="How long to record.", metavar="DURATION")
    ] = 3600.0,
    every_s: Annotated[
        float | None,
        typer.Option(
            "--every", parser=seconds, help="Length of an interval (setting tick_s).", metavar="DURATION"
        ),
    ] = None,
    vm: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a VM; repeat for each VM. By default EC2 lists them.", metavar="ADDRESS"
        ),
    ] = None,
    endpoint_url: ENDPOINT_URL = None,
    region: REGION = None,
    force: OVERWRITE = False,
    manifest: MANIFEST = True,
    as_json: JSON = False,
) -> None:
    """Record a running fleet's demand from its policy's own source; nothing is started or stopped.

    To get what a daemon has already measured, use `autoscaler export`.
    """
    import asyncio

    from autoscaler.config.loading import require_policy
    from autoscaler.settings import load_settings

    with errors_in_words("trace record"):
        check_out(out, force=force, manifest=manifest)
        settings = load_settings(aws_endpoint_url=endpoint_url, aws_region=region)
        tick_s = settings.tick_s if every_s is None else every_s
        defaults = policy.parent / "defaults.yaml"
        read = require_policy(policy, defaults if defaults.is_file() else None, tick_s)
        sampled, stopped = asyncio.run(_sample(read, policy.parent, settings, tick_s, for_s, vm or ()))
        if sampled.trace is None:
            _nothing(sampled, stopped=stopped)
        else:
            notes = [
                f"{sampled.ticks} readings of fleet {read.fleet}'s {read.signal.kind} by its policy's source"
            ]
            if sampled.unknown:
                notes.append(
                    f"{sampled.unknown} of them gave nothing and stay unknown; the last: {sampled.error}"
                )
            write(out, sampled.trace, force=force, manifest=manifest, as_json=as_json, notes=notes)
    if stopped:
        typer.echo("trace record: interrupted; what was recorded until then is kept", err=True)
        raise typer.Exit(INTERRUPTED)


def _nothing(sampled: Sampled, *, stopped: bool) -> None:
    from autoscaler.errors import TraceError

    if stopped:
        typer.echo("trace record: interrupted before there was enough for a trace", err=True)
        raise typer.Exit(INTERRUPTED)
    raise TraceError(
        f"{sampled.ticks - sampled.unknown} of {sampled.ticks} readings gave a value, but a trace needs two"
        + (f"; the last error was: {sampled.error}" if sampled.error else "")
    )


async def _sample(
    policy: Policy,
    folder: Path,
    settings: Settings,
    tick_s: float,
    for_s: float,
    addresses: list[str] | tuple[()],
) -> tuple[Sampled, bool]:
    """Return what was sampled, and whether Ctrl-C ended it."""
    import asyncio

    from autoscaler.clock import SystemClock
    from autoscaler.simulator.traffic.sampling import Sampling
    from autoscaler.wiring_providers import clouds_of
    from autoscaler.wiring_sources import source_for

    clock, stop = SystemClock(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with AsyncExitStack() as stack:
        source = source_for(
            policy, clock, folder, lambda each: clouds_of(settings).cloudwatch_of(each), tick_s=tick_s
        )
        stack.push_async_callback(source.close)
        provider: Provider | None = None
        if not addresses and not policy.signal.of_the_fleet:
            provider = await _provider(policy, settings, clock)
            stack.push_async_callback(provider.close)
        sampling = Sampling(
            policy, source, clock, tick_s, provider, [_vm(policy, address) for address in addresses],
            tell=lambda text: typer.echo(f"trace record: {text}", err=True),
        )  # fmt: skip
        return await sampling.run(for_s, stop), stop.is_set()


async def _provider(policy: Policy, settings: Settings, clock: Clock) -> Provider:
    from autoscaler.wiring_providers import clouds_of, open_provider

    return await open_provider(clouds_of(settings).of(policy), clock)


def _vm(policy: Policy, address: str) -> Vm:
    from autoscaler.ports import Vm, VmState

    return Vm(address, policy.fleet, VmState.RUNNING, "", "", address, 0.0, "")
