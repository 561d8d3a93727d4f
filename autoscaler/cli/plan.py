"""`plan`: what a changed policy file would have done, compared with the policy in force, as text for a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import JSON, STATE_DIR
from autoscaler.cli.output import (
    end_of_part,
    errors_in_words,
    moment_or_ago,
    print_json,
    recording,
    seconds,
    since_epoch,
    unknown_word,
    write_text,
)
from autoscaler.cli.replay_options import KIND, SCALE, SEED, VMS

if TYPE_CHECKING:
    from autoscaler.config.policy import Policy
    from autoscaler.traces.trace import Trace

_WEEK_S = 7 * 86_400.0


def plan(
    changed: Annotated[Path, typer.Argument(help="The changed policy file.", metavar="POLICY")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The policy in force (default: the fleet's own in the policy folder of the settings).",
            metavar="FILE",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Traffic to run it on (default: the daemon's own journal).", metavar="TRACE"),
    ] = None,
    since_s: Annotated[
        float | None,
        typer.Option(
            "--since",
            parser=moment_or_ago,
            help="Start of the journal's traffic: 7d (ago) or a time (default: 7d).",
            metavar="TIME",
        ),
    ] = None,
    state_dir: STATE_DIR = None,
    kind: KIND = None,
    scale_to_vms: SCALE = None,
    vms: VMS = None,
    tick_s: Annotated[
        float | None,
        typer.Option(
            "--tick",
            parser=seconds,
            help="Time between decisions (default: as recorded).",
            metavar="DURATION",
        ),
    ] = None,
    seed: SEED = 1,
    out: Annotated[
        Path | None, typer.Option(help="Also write the text here (Markdown).", metavar="FILE")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Show what a changed policy would have done on recent traffic, compared with the one in force: decisions, cost, shortage."""
    from autoscaler.cli.progress import Bar, interruptible

    if trace is None and (kind or scale_to_vms):
        raise typer.BadParameter(
            "these options belong to --trace; a journal knows its unit", param_hint="--kind, --scale-to-vms"
        )
    with errors_in_words("plan"):
        from autoscaler.simulator.replay import replaying
        from autoscaler.simulator.replay.policy_plan import Plan, plan_json, plan_markdown
        from autoscaler.simulator.replay.preparing import Wanted, prepare, shared_luck

        policy, in_force, in_force_file = _policies(changed, against)
        traffic, played, notes = _traffic(policy.fleet, trace, kind, since_s, state_dir)
        capacity_per_s = in_force.vm.capacity_per_s
        wanted = Wanted(
            vms=vms, tick_s=tick_s, scale_to_vms=scale_to_vms, scaled_for_per_s=capacity_per_s, seed=seed
        )
        sides = ((in_force, in_force_file), (policy, changed))
        pair = shared_luck(tuple(prepare(side, file, played, wanted) for side, file in sides))
        runs = {}
        with interruptible() as interrupted:
            for name, one in zip(("the policy in force", "the changed policy"), pair, strict=True):
                with Bar(f"replaying {name}", quiet=as_json) as bar:
                    runs[name] = (one, replaying.run(one, bar, interrupted))
                if len(runs[name][1].scored) < 2:
                    raise KeyboardInterrupt
        (one, ran_one), (two, ran_two) = replaying.same_span(runs).values()
        found = Plan(policy.fleet, traffic, one, ran_one, two, ran_two, notes)
        text = plan_markdown(found)
        if out is not None:
            write_text(out, text)
        if as_json:
            print_json({"version": FORM, **plan_json(found)})
        else:
            typer.echo(text, nl=False)
        end_of_part(interrupted)


def _policies(changed: Path, against: Path | None) -> tuple[Policy, Policy, Path]:
    from autoscaler.config.loading import load_policies, require_policy
    from autoscaler.errors import ConfigError
    from autoscaler.settings import load_settings

    if against is not None:
        policy, other = require_policy(changed), require_policy(against)
        return policy, other, against
    folder = load_settings().policies
    loaded = load_policies(folder)
    # The changed file is read with the defaults.yaml beside it, or else with that of the folder in force.
    own = changed.parent / "defaults.yaml"
    policy = require_policy(changed, None if own.exists() else _defaults(folder))
    if policy.fleet not in loaded.files:
        if loaded.errors:
            raise ConfigError("\n".join(map(str, loaded.errors)))
        raise ConfigError(
            f"{unknown_word(policy.fleet, loaded.files, 'fleet', f'the folder {folder}')}; name the policy in force "
            "with --against FILE"
        )
    file = loaded.files[policy.fleet]
    if file.resolve() == changed.resolve():
        raise ConfigError(
            f"{changed} is the policy in force itself; give the changed file another place, or name the one in force "
            "with --against FILE"
        )
    return policy, next(one for one in loaded.policies if one.fleet == policy.fleet), file


def _defaults(folder: Path) -> Path | None:
    found = folder / "defaults.yaml"
    return found if found.exists() else None


def _traffic(
    fleet: str, trace: Path | None, kind: str | None, since_s: float | None, state_dir: Path | None
) -> tuple[str, Trace, tuple[str, ...]]:
    from autoscaler.clock import SystemClock
    from autoscaler.errors import JournalError
    from autoscaler.settings import load_settings
    from autoscaler.simulator.replay.exporting import demand_trace
    from autoscaler.simulator.report.wording import span
    from autoscaler.store import JournalReader

    if trace is not None:
        played = recording(trace, kind)
        return f"trace {played.name}", played, ()
    directory = load_settings(state_dir=state_dir).state_dir
    now_s = SystemClock().now()
    begin_s = since_epoch(since_s, now_s, now_s - _WEEK_S)
    with JournalReader(directory) as reader:
        if reader.span(fleet) is None:
            where = f"the journal in {directory}"
            raise JournalError(unknown_word(fleet, reader.fleets_ever(), "fleet", where))
        found = demand_trace(fleet, reader.each_tick(fleet, begin_s, float("inf")))
    covered = span(found.trace.end_s - found.trace.start_s)
    return f"the last {covered} of the journal", found.trace, found.notes
