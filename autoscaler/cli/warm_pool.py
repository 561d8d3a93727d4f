"""`pool`: lists the VMs of a running daemon's fleets, and lets operators act on those in the warm pool.

Exit codes: 0 done or nothing to do, 1 no daemon or it refused (the reason is given), 2 wrong usage. Before it answers, the
daemon has recorded the command with its operator and reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from autoscaler.cli.operate import ReasonOption, SocketOption, print_answer
from autoscaler.cli.options import FLEET, JSON
from autoscaler.cli.output import errors_in_words, seconds
from autoscaler.words import counted

VmsArgument = Annotated[list[str], typer.Argument(help="Ids of VMs.", metavar="VM...")]
SomeVmsArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids of VMs (default: all that are stopped).", metavar="[VM...]")
]


def list_vms(
    fleet: Annotated[
        str | None, typer.Option("--fleet", "-f", help="Only this fleet.", metavar="FLEET")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Only VMs made from this image.", metavar="AMI")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--version", help="Only VMs whose tag autoscaler:version has this value.", metavar="TEXT"
        ),
    ] = None,
    older_than_s: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            parser=seconds,
            help="Only VMs whose image is older (tag autoscaler:baked-at); without the tag, VMs that are older themselves.",
            metavar="DURATION",
        ),
    ] = None,
    socket: SocketOption = None,
    as_json: JSON = False,
) -> None:
    """Show every VM: its state, image, version, age, and what keeps it from being started.

    Use --image, --version and --older-than to find VMs that lack a patch.
    """
    from urllib.parse import quote

    from autoscaler.cli.control_client import ask, control_path

    with errors_in_words("pool list"):
        found = ask(control_path(socket), "pool" + (f"?fleet={quote(fleet)}" if fleet else ""))
    found["vms"] = [
        vm
        for vm in found["vms"]
        if (image is None or vm["image"] == image)
        and (version is None or vm["version"] == version)
        and (older_than_s is None or (vm["age_s"] if vm["baked_s"] is None else vm["baked_s"]) > older_than_s)
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not found["vms"] and (image, version, older_than_s) != (None, None, None):
        typer.echo("no such VM")
        return
    _show(found["vms"])


def exercise(
    fleet: FLEET,
    reason: ReasonOption,
    vms: SomeVmsArgument = None,
    socket: SocketOption = None,
    as_json: JSON = False,
) -> None:
    """Exercise stopped VMs: each is started, checked for readiness and stopped; a VM that fails is barred from starting."""
    _tell("exercise", fleet, vms or [], reason, socket, as_json)


def refresh(fleet: FLEET, reason: ReasonOption, socket: SocketOption = None, as_json: JSON = False) -> None:
    """Replace outdated VMs of the pool now, regardless of the policy's windows."""
    _tell("refresh", fleet, [], reason, socket, as_json)


def _of_vms(what: str, does: str) -> Callable[..., None]:
    def asked(
        fleet: FLEET,
        vms: VmsArgument,
        reason: ReasonOption,
        socket: SocketOption = None,
        as_json: JSON = False,
    ) -> None:
        _tell(what, fleet, vms, reason, socket, as_json)

    asked.__doc__ = does
    return asked


evict = _of_vms("evict", "Delete stopped VMs for good, whoever made them.")
quarantine = _of_vms("quarantine", "Bar VMs from being started until they are released.")
release = _of_vms("release", "Allow VMs to be started again, whatever barred them.")
adopt = _of_vms("adopt", "Assign VMs to a fleet by the ownership tag.")
disown = _of_vms("disown", "Release VMs from their fleet; they stay as they are.")


def _tell(what: str, fleet: str, vms: list[str], reason: str, socket: Path | None, as_json: bool) -> None:
    from autoscaler.cli.control_client import ask, control_path

    with errors_in_words(f"pool {what}"):
        found = ask(control_path(socket), f"pool/{what}", {"fleet": fleet, "vms": vms, "reason": reason})
    print_answer(found, as_json, found["sentences"])


def _show(vms: list[dict[str, Any]]) -> None:
    if not vms:
        typer.echo("no VM is known")
        return
    rows = [("fleet", "VM", "phase", "type", "zone", "image", "version", "baked", "age", "last ran", "")]
    for vm in vms:
        # Without a tag for its creation, a VM is at least as old as its last start.
        age = _time(vm["age_s"]) + ("" if vm["age_is_known"] else "+")
        rows.append(
            (
                *(vm[name] for name in ("fleet", "vm", "phase", "type", "zone", "image")),
                vm["version"] or "-",
                "-" if vm["baked_s"] is None else _time(vm["baked_s"]),
                age,
                _time(vm["last_ran_s"]),
                "; ".join(_remarks(vm)),
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    images: dict[str, int] = {}
    for vm in vms:
        images[vm["image"]] = images.get(vm["image"], 0) + 1
    shown = ", ".join(f"{image or 'unknown'}: {count}" for image, count in sorted(images.items()))
    typer.echo(f"VMs by image: {shown}")
    typer.echo(total(vms))


def total(vms: list[dict[str, Any]]) -> str:
    """Return a sentence with the number of VMs, in total and in each state, the largest count first."""
    fleets = len({vm["fleet"] for vm in vms})
    where = f" of {fleets} fleets" if fleets > 1 else ""
    states = Counter(vm["phase"].replace("_", " ") for vm in vms)
    # Equal counts keep their order in the list, which follows the life of a VM.
    shown = ", ".join(f"{count} {state}" for state, count in states.most_common())
    return f"{counted(len(vms), 'VM')}{where}: {shown}"


def _remarks(vm: dict[str, Any]) -> list[str]:
    found = []
    if vm["being_deleted"]:
        found.append("being deleted")
    if vm["quarantine"]:
        until = "" if vm["quarantined_for_s"] is None else f" for {_time(vm['quarantined_for_s'])}"
        found.append(f"not started{until}: {vm['quarantine']}")
    if vm["out_of_date"]:
        found.append(f"out of date: {vm['out_of_date']}")
    if vm["hibernated"]:
        found.append("hibernated")
    if vm["protected"]:
        found.append("protected")
    return found


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
