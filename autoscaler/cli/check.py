"""`check`: the checks that a policy's simulation must pass before its figures are believed.

Exit codes: 0 no guard fails, 1 a guard fails or the command could not run, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import JSON, POLICY
from autoscaler.cli.output import FAILED, errors_in_words, recording
from autoscaler.cli.replay_options import FROM, KIND, SCALE, SEED, TICK, TO, VMS

if TYPE_CHECKING:
    from autoscaler.config.policy import Policy
    from autoscaler.simulator.checks.guards import Verdict
    from autoscaler.simulator.checks.subject import Subject
    from autoscaler.traces.trace import Trace


def check(
    policy: POLICY,
    trace: Annotated[
        Path | None,
        typer.Argument(
            help="Traffic for the check (default: a generated day with a crowd).", metavar="TRACE"
        ),
    ] = None,
    kind: KIND = None,
    scale_to_vms: SCALE = None,
    vms: VMS = None,
    tick_s: TICK = None,
    from_s: FROM = None,
    to_s: TO = None,
    seed: SEED = 1,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Run only this check; repeatable.", metavar="GUARD"),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Check that a policy does not look ahead, depend on its start, on other fleets or on luck, or act on silence."""
    from autoscaler.cli.progress import Bar

    with errors_in_words("check"):
        from autoscaler.config.loading import require_policy
        from autoscaler.simulator.checks.guards import GUARDS, State
        from autoscaler.simulator.checks.parities import engine_parity, journal_parity

        guards = {**GUARDS, "engine parity": engine_parity, "journal parity": journal_parity}
        chosen = _chosen(only, list(guards))
        given = require_policy(policy)
        played = _traffic(given, trace, kind)
        subject = _subject(given, policy, played, (vms, tick_s, from_s, to_s, scale_to_vms, seed))
        verdicts: list[Verdict] = []
        with Bar(f"checking {policy.name}", quiet=as_json) as bar:
            for number, name in enumerate(chosen):
                verdicts.append(guards[name](subject))
                bar((number + 1) / len(chosen))
        if as_json:
            _tell_programs(policy, played, verdicts)
        else:
            _tell(policy, played, verdicts)
        if any(verdict.state is State.FAILS for verdict in verdicts):
            raise typer.Exit(FAILED)


def _chosen(only: list[str] | None, known: list[str]) -> list[str]:
    from autoscaler.cli.output import unknown_word
    from autoscaler.errors import ConfigError

    for name in only or ():
        if name not in known:
            raise ConfigError(unknown_word(name, known, "guard", "the list of guards"))
    return only or known


def _traffic(policy: Policy, trace: Path | None, kind: str | None) -> Trace:
    from autoscaler.simulator.traffic.parts import Crowd, Daily, Level, Recipe, generate

    if trace is not None:
        return recording(trace, kind)
    # Demand stays within the policy's bounds, so that every guard has decisions to examine.
    most = 0.8 * max(policy.bounds.maximum, 2) * policy.vm.capacity_per_s
    parts = (Level(0.15 * most), Daily(0.45 * most), Crowd(at_s=16 * 3600.0, height=0.4 * most))
    return generate(Recipe(parts=parts, dispersion=4.0, name="a generated day"))


def _subject(
    policy: Policy,
    file: Path,
    trace: Trace,
    given: tuple[int | None, float | None, float | None, float | None, int | None, int],
) -> Subject:
    from autoscaler.simulator.checks.subject import Subject
    from autoscaler.simulator.lanes.matching import as_probed
    from autoscaler.simulator.replay.preparing import Wanted, prepare

    vms, tick_s, from_s, to_s, scale_to_vms, seed = given
    wanted = Wanted(vms=vms, tick_s=tick_s, begin_s=from_s, end_s=to_s, scale_to_vms=scale_to_vms, seed=seed)
    ready = prepare(policy, file, trace, wanted)
    return Subject(as_probed(ready.fitted), ready.plant, ready.trace, ready.grid, seed)


def _tell(policy: Path, trace: Trace, verdicts: list[Verdict]) -> None:
    from autoscaler.simulator.checks.guards import State

    typer.echo(f"{policy} on {trace.name}:")
    width = max(len(verdict.guard) for verdict in verdicts)
    for verdict in verdicts:
        typer.echo(f"  {verdict.state:9}  {verdict.guard:{width}}  {verdict.finding}")
    failed = [verdict.guard for verdict in verdicts if verdict.state is State.FAILS]
    unshown = sum(verdict.state is State.NOT_SHOWN for verdict in verdicts)
    if failed:
        typer.echo(f"Do not believe figures of this policy: {', '.join(failed)}")
    elif unshown:
        typer.echo(
            f"No guard fails; {unshown} could not be shown on this traffic: check it on other traffic too"
        )
    else:
        typer.echo("All guards hold")


def _tell_programs(policy: Path, trace: Trace, verdicts: list[Verdict]) -> None:
    from autoscaler.simulator.checks.guards import State

    document = {
        "policy": str(policy),
        "trace": trace.digest,
        "holds": all(verdict.state is not State.FAILS for verdict in verdicts),
        "guards": [
            {"guard": verdict.guard, "state": str(verdict.state), "said": verdict.finding}
            for verdict in verdicts
        ],
    }
    typer.echo(json.dumps({"version": FORM, **document}, indent=2))
