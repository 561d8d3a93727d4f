"""Options and arguments that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.output import moment_or_ago

JSON = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
STATE_DIR = Annotated[
    Path | None, typer.Option(help="Folder of the journal (setting state_dir).", metavar="DIR")
]
POLICIES = Annotated[Path | None, typer.Option(help="Folder of policies (setting policies).", metavar="DIR")]
ENDPOINT_URL = Annotated[
    str | None, typer.Option(help="EC2 endpoint to use instead of AWS's (setting aws_endpoint_url).")
]
REGION = Annotated[str | None, typer.Option(help="AWS Region (setting aws_region).")]
FLEET = Annotated[str, typer.Argument(help="Name of the fleet.")]
UNTIL = Annotated[
    float | None, typer.Option("--until", parser=moment_or_ago, help="End, in the same form.", metavar="TIME")
]
POLICY = Annotated[Path, typer.Argument(help="Policy file.", metavar="POLICY")]
TRACE = Annotated[Path, typer.Argument(help="Trace: .csv, .csv.gz or .parquet.", metavar="TRACE")]
PROCESSES = Annotated[
    int, typer.Option(min=1, max=256, help="Number of processes to compute with on this machine.")
]
PAGE = Annotated[
    Path | None, typer.Option(help="Output file (default: RESULTS.md in the folder).", metavar="FILE")
]
NEW_TRACE = Annotated[Path, typer.Argument(help="Output file: .csv, .csv.gz or .parquet.", metavar="OUT")]
TRACE_KIND = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="Kind of the values: count (work in the interval) or gauge (a level).",
        metavar="count|gauge",
    ),
]
OVERWRITE = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
MANIFEST = Annotated[
    bool,
    typer.Option(
        "--manifest/--no-manifest",
        help="Record kind and interval in the manifest.csv beside the file, so that no --kind is needed.",
    ),
]
