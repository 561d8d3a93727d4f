"""`cloud`: the embedded cloud on its own, for experiments with any EC2 client.

Exit codes: 0 ended by Ctrl-C or SIGTERM, 1 could not start (port in use, invalid fault file), 2 wrong usage.

Rules of this file: presentation and wiring only. Imports wait until the command runs, so that `--help` stays quick.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import JSON

if TYPE_CHECKING:
    from autoscaler.cloud.setup import CloudSetup


def cloud(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port on loopback; 0 takes a free one.")
    ] = 4599,
    vms: Annotated[
        int, typer.Option(min=0, max=100_000, help="Number of VMs that exist at the start, stopped.")
    ] = 20,
    fleet: Annotated[
        str, typer.Option(help="Name of their fleet, and of a launch template that makes more.")
    ] = "web",
    seed: Annotated[int, typer.Option(min=0, help="Seed; the same seed and calls give the same cloud.")] = 0,
    speed: Annotated[
        float, typer.Option(min=0.01, max=10_000, help="Seconds in the cloud per real second.")
    ] = 1.0,
    faults: Annotated[
        Path | None, typer.Option(help="Schedule of faults (YAML or JSON).", metavar="FILE")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Run an EC2 look-alike on loopback until Ctrl-C: real protocol, simulated VMs, no bill."""
    import asyncio

    from autoscaler.cloud.setup import ClockSetup, CloudSetup, FleetSetup, read_faults
    from autoscaler.errors import AutoscalerError

    try:
        setup = CloudSetup(
            seed=seed,
            fleets=(FleetSetup(fleet, vms),),
            faults=() if faults is None else read_faults(faults),
            clock=ClockSetup(speed=speed),
            port=port,
        )
        asyncio.run(_serve(setup, as_json=as_json))
    except AutoscalerError as error:
        typer.echo(f"cloud: {error}", err=True)
        raise typer.Exit(1) from None


async def _serve(setup: CloudSetup, *, as_json: bool) -> None:
    import asyncio

    from autoscaler.cloud.ec2_api import address, serve
    from autoscaler.errors import DaemonError

    try:
        runner = await serve(setup)
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise DaemonError(
            f"port {setup.port} on 127.0.0.1 cannot be taken: {why}; "
            "choose another with --port, or --port 0 for a free one"
        ) from None
    try:
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        url = address(runner)
        typer.echo(json.dumps({"version": FORM, **_facts(setup, url)}) if as_json else _welcome(setup, url))
        await told.wait()
    finally:
        await runner.cleanup()
    if not as_json:
        typer.echo("The cloud is gone.")


def _facts(setup: CloudSetup, url: str) -> dict[str, object]:
    return {
        "url": url,
        "region": setup.region,
        "fleet": setup.fleets[0].fleet,
        "vms": setup.fleets[0].vms,
        "seed": setup.seed,
        "speed": setup.clock.speed,
        "faults": len(setup.faults),
    }


def _welcome(setup: CloudSetup, url: str) -> str:
    fleet = setup.fleets[0]
    pace = "" if setup.clock.speed == 1 else f", time runs {setup.clock.speed:g} times as fast"
    return f"""\
An EC2 look-alike listens on {url}
Fleet {fleet.fleet}: {fleet.vms} VMs, stopped; launch template {fleet.fleet}; {len(setup.faults)} faults planned{pace}.

With the AWS command line (any credentials will do):
  export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION={setup.region}
  aws --endpoint-url {url} ec2 describe-instances --filters Name=tag:autoscaler:fleet,Values={fleet.fleet}

With Python (boto3; aiobotocore likewise):
  import boto3
  ec2 = boto3.client("ec2", endpoint_url="{url}", region_name="{setup.region}",
                     aws_access_key_id="any", aws_secret_access_key="any")
  ids = [i["InstanceId"] for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
  ec2.start_instances(InstanceIds=ids[:3])

The true state, which no daemon may read:  {url}/_world/state · /_world/bill · /_world/calls
Ctrl-C ends it."""
