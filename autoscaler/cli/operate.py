"""`pause`, `resume`, `override`, `operations`: operators' commands to a running daemon.

Exit codes: 0 done or nothing to do, 1 no daemon or it refused (the reason is given), 2 wrong usage. Before it answers, the
daemon has recorded the command with its operator and reason.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from autoscaler.cli.options import FLEET, JSON
from autoscaler.cli.output import errors_in_words, moment, seconds


class What(StrEnum):
    """The actions that can be paused."""

    START = "start"
    STOP = "stop"
    PROVISION = "provision"
    REFILL = "refill"
    ALL = "all"


_ALL = ("start", "stop", "provision", "refill")

ReasonOption = Annotated[
    str, typer.Option("--reason", "-m", help="Reason, for those who read it later.", metavar="TEXT")
]
FleetOption = Annotated[
    list[str] | None, typer.Option("--fleet", "-f", help="Name of a fleet; repeatable.", metavar="FLEET")
]
AllFleetsOption = Annotated[
    bool, typer.Option("--all-fleets", help="All fleets, including those added later.")
]
ForOption = Annotated[
    float | None,
    typer.Option(
        "--for", parser=seconds, help="How long it applies, for example 2h or 1d.", metavar="DURATION"
    ),
]
UntilOption = Annotated[
    float | None,
    typer.Option(
        "--until", parser=moment, help="When it ends, for example 2026-03-01T18:00Z.", metavar="TIME"
    ),
]
NoExpiryOption = Annotated[bool, typer.Option("--no-expiry", help="Keep it until an operator ends it.")]
SocketOption = Annotated[
    Path | None,
    typer.Option("--socket", help="The daemon's control socket (setting control_socket).", metavar="PATH"),
]


def pause(
    reason: ReasonOption,
    what: Annotated[What, typer.Argument(help="What to hold back.")] = What.ALL,
    fleet: FleetOption = None,
    all_fleets: AllFleetsOption = False,
    for_s: ForOption = None,
    until_s: UntilOption = None,
    no_expiry: NoExpiryOption = False,
    socket: SocketOption = None,
    as_json: JSON = False,
) -> None:
    """Keep a daemon from starting, stopping, provisioning or refilling for a while; it keeps deciding and recording.

    With stops paused it still starts VMs when demand needs them, and deletes only VMs that operators evict. Pausing itself
    leaves all VMs as they are.
    """
    change = _fleets(fleet, all_fleets) | _term(for_s, until_s, no_expiry)
    _tell("pause", socket, as_json, change | {"verbs": _verbs(what), "reason": reason})


def resume(
    reason: ReasonOption,
    what: Annotated[What, typer.Argument(help="What to resume.")] = What.ALL,
    fleet: FleetOption = None,
    all_fleets: AllFleetsOption = False,
    socket: SocketOption = None,
    as_json: JSON = False,
) -> None:
    """End pauses early.

    With --all-fleets, pauses of single fleets end too. It is no error if there is nothing to end.
    """
    change = _fleets(fleet, all_fleets)
    _tell("resume", socket, as_json, change | {"verbs": _verbs(what), "reason": reason})


def override(
    fleet: FLEET,
    reason: ReasonOption,
    floor: Annotated[
        int | None, typer.Option(min=1, help="At least this many VMs in service.", metavar="VMS")
    ] = None,
    ceiling: Annotated[
        int | None, typer.Option(min=0, help="At most this many VMs in service.", metavar="VMS")
    ] = None,
    for_s: ForOption = None,
    until_s: UntilOption = None,
    no_expiry: NoExpiryOption = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="End the override: the policy's bounds apply again.")
    ] = False,
    socket: SocketOption = None,
    as_json: JSON = False,
) -> None:
    """Replace a fleet's minimum and maximum by other bounds for a while.

    A new override replaces an earlier one completely. A floor only raises the policy's minimum.
    A ceiling may be above the policy's maximum or below its minimum.
    """
    bounds = {"floor": floor, "ceiling": ceiling}
    given = {name: value for name, value in bounds.items() if value is not None}
    if clear:
        if given or for_s is not None or until_s is not None or no_expiry:
            raise typer.BadParameter("--clear ends an override and takes no bounds and no time")
        _tell("clear", socket, as_json, {"fleet": fleet, "reason": reason})
        return
    if not given:
        raise typer.BadParameter("give --floor, --ceiling or both, or --clear")
    term = _term(for_s, until_s, no_expiry)
    _tell("override", socket, as_json, {"fleet": fleet, "reason": reason} | given | term)


def operations(socket: SocketOption = None, as_json: JSON = False) -> None:
    """Show the pauses and overrides in force: what, who, why, until when."""
    from autoscaler.cli.control_client import ask, control_path

    with errors_in_words("operations"):
        found = ask(control_path(socket), "operations")
    print_answer(found, as_json, found["sentences"] or ["nothing is paused or overridden"])


def _tell(command: str, socket: Path | None, as_json: bool, change: dict[str, Any]) -> None:
    from autoscaler.cli.control_client import ask, control_path

    with errors_in_words("override" if command == "clear" else command):
        found = ask(control_path(socket), command, change)
    print_answer(found, as_json, found["sentences"])


def print_answer(found: dict[str, Any], as_json: bool, sentences: list[str]) -> None:
    """Print the daemon's answer as JSON or as sentences."""
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(sentences))


def _verbs(what: What) -> list[str]:
    return list(_ALL) if what is What.ALL else [what.value]


def _fleets(fleet: list[str] | None, all_fleets: bool) -> dict[str, Any]:
    if bool(fleet) == all_fleets:
        raise typer.BadParameter("name the fleet with --fleet FLEET, or all of them with --all-fleets")
    return {"all_fleets": True} if all_fleets else {"fleets": fleet}


def _term(for_s: float | None, until_s: float | None, no_expiry: bool) -> dict[str, Any]:
    given = {"for_s": for_s, "until_s": until_s, "no_expiry": no_expiry or None}
    term = {name: value for name, value in given.items() if value is not None}
    if len(term) != 1:
        raise typer.BadParameter("say until when: --for 2h, --until TIME, or --no-expiry")
    return term
