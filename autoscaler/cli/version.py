"""`version`: the versions of the program and its platform."""

from __future__ import annotations

import json
import platform

import typer

from autoscaler.cli.options import JSON


def version(
    as_json: JSON = False,
) -> None:
    """Show the versions of the program and its platform; `--version` shows that of the program alone."""
    from importlib.metadata import version as of

    found = {
        "autoscaler": of("vm-autoscaler"),
        "python": platform.python_version(),
        "numpy": of("numpy"),
        "aiobotocore": of("aiobotocore"),
        "botocore": of("botocore"),
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(f"{name} {number}" for name, number in found.items()))
