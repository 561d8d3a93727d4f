"""The table of all commands. Only the command that is called is imported and built.

Why: to import the modules of all commands and build their parsers took longer than most commands run.

Rules of this file: the table holds each command's line in the help of its group, so that help and completion import no
command. A test compares these lines with the docstrings of the commands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from autoscaler.cli.examples import EXAMPLES

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run:run", "Run the daemon until it is told to stop; VMs in service then stay as they are."),
    "demo": ("demo:demo", "Watch a real daemon start and stop 60 VMs through the EC2 protocol, with the memory of the week before."),
    "cloud": ("cloud:cloud", "Run an EC2 look-alike on loopback until Ctrl-C: real protocol, simulated VMs, no bill."),
    "validate": ("policy:validate", "Check policies and print each problem as file:line:column: error: what is wrong; what to do."),
    "doctor": ("doctor:doctor", "Check settings, policies, metrics, permissions, quotas and VMs, and say how to fix what is wrong."),
    "status": ("status:status", "Show what the daemon sees, wants and does now: first what needs attention, then a line per fleet, then why."),
    "explain": ("explain:explain", "Explain a fleet's size by inputs, stages and outcomes, or list what happened to it --since a time."),
    "pause": ("operate:pause", "Keep a daemon from starting, stopping, provisioning or refilling for a while; it keeps deciding and recording."),
    "resume": ("operate:resume", "End pauses early."),
    "override": ("operate:override", "Replace a fleet's minimum and maximum by other bounds for a while."),
    "operations": ("operate:operations", "Show the pauses and overrides in force: what, who, why, until when."),
    "events": ("events:events", "Show what happened apart from decisions: failed VMs, reloads, operators' changes; newest last."),
    "export": ("export:export", "Write a fleet's demand as a trace, or its timeline, from the journal to a file."),
    "replay": ("replay:replay", "Run a policy on a recorded trace and show its cost and its shortages, against baselines."),
    "compare": ("replay:compare", "Run policies on the same trace and fleet with the same luck: score cards side by side, and where decisions differ."),
    "sweep": ("sweep:sweep", "Run every combination of values of some fields, and show those that no other beats in both cost and unserved work."),
    "recommend": ("recommend:recommend", "Say what to change in a policy, or that nothing tried is better, or that a difference may be luck."),
    "benchmark": ("benchmark:benchmark", "Compare a policy with all peers at every setting, and with hindsight, on recorded demand."),
    "plan": ("plan:plan", "Show what a changed policy would have done on recent traffic, compared with the one in force: decisions, cost, shortage."),
    "check": ("check:check", "Check that a policy does not look ahead, depend on its start, on other fleets or on luck, or act on silence."),
    "report": ("replay:report", "Rebuild report.html from report.json and the timeline beside it."),
    "version": ("version:version", "Show the versions of the program and its platform; `--version` shows that of the program alone."),
    "policy show": ("policy:policy_show", "Print a fleet's effective policy: every field, defaults included, as YAML that loads again."),
    "policy schema": ("policy:policy_schema", "Print the JSON Schema of policy files, for editors that complete and check YAML."),
    "policy results": ("policy:policy_results", "Replay each policy of a folder on generated traffic of its kind, compare it with peers, and write a page."),
    "shadow report": ("shadow:shadow_report", "Show what fleets in shadow would have cost and missed under their policies, compared with what really ran."),
    "trace info": ("trace:info", "Describe files: extent, gaps, level, burstiness, daily rhythm, and what to beware of."),
    "trace import": ("trace_import:import_trace", "Make a trace from a table, events, VM utilisation, logs, or a response of Prometheus or CloudWatch."),
    "trace cut": ("trace:cut", "Write part of a trace, or the trace in longer intervals."),
    "trace merge": ("trace:merge", "Join recordings of the same demand; overlaps must agree, and gaps stay gaps."),
    "trace record": ("trace_record:record", "Record a running fleet's demand from its policy's own source; nothing is started or stopped."),
    "trace synth": ("trace_synth:synth", "Generate traffic: daily and weekly cycles, trends, crowds, ramps, batches, outages, noise; repeatable by seed."),
    "scenario run": ("scenario:scenario_run", "Play scenarios with the real daemon on virtual time, and compare the outcome with the expectations."),
    "scenario results": ("scenario:scenario_results", "Play all scenarios of a folder and write a page with their results."),
    "pool list": ("warm_pool:list_vms", "Show every VM: its state, image, version, age, and what keeps it from being started."),
    "pool exercise": ("warm_pool:exercise", "Exercise stopped VMs: each is started, checked for readiness and stopped; a VM that fails is barred from starting."),
    "pool refresh": ("warm_pool:refresh", "Replace outdated VMs of the pool now, regardless of the policy's windows."),
    "pool evict": ("warm_pool:evict", "Delete stopped VMs for good, whoever made them."),
    "pool quarantine": ("warm_pool:quarantine", "Bar VMs from being started until they are released."),
    "pool release": ("warm_pool:release", "Allow VMs to be started again, whatever barred them."),
    "pool adopt": ("warm_pool:adopt", "Assign VMs to a fleet by the ownership tag."),
    "pool disown": ("warm_pool:disown", "Release VMs from their fleet; they stay as they are."),
}  # fmt: skip
"""Where each command is (module and function), and the first paragraph of its help. The help of groups has this order."""

GROUPS = {
    "policy": "Inspect policies.",
    "shadow": "Inspect fleets in shadow, which are decided on but not changed.",
    "trace": "Make and inspect traces: recorded or generated demand.",
    "scenario": "Play bad days and check the outcome.",
    "pool": "Inspect single VMs, and maintain the warm pool.",
}
"""The help of each group of commands."""


class Group(TyperGroup):
    """A group of commands, each of which is imported and built when it is looked up.

    Args:
        path: The group's full name, which its commands' names begin with; empty for the program itself.
    """

    def __init__(self, path: str = "", **given: Any) -> None:
        super().__init__(**given)
        self.commands = cast(Any, _Members(path))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  the parser passes it
        """Return a command or group by its name within this group; None if there is none."""
        # Not by `get`, which would take a KeyError of the command's module for a command that does not exist.
        if cmd_name not in self.commands:
            return None
        return self.commands[cmd_name]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the parser passes it
        """Return the names in this group, in the order of the table."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without building any command."""
        TyperGroup.format_help(self._listed(), ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return what may follow on the command line, without building any command."""
        # The parser looks for the names in the context's command.
        context = copy.copy(ctx)
        context.command = self._listed()
        return TyperGroup.shell_complete(context.command, context, incomplete)

    def _listed(self) -> Group:
        """Return a copy of this group in which commands have a name and a line of help, and nothing else."""
        listed = copy.copy(self)
        lines = cast(_Members, self.commands).lines
        listed.commands = {name: TyperCommand(name, help=line) for name, line in lines.items()}
        return listed


class _Members(Mapping[str, Any]):
    """The commands and groups within a group by name; one that is looked up is built, once.

    Args:
        path: The group's full name; empty for the program itself.

    Attributes:
        lines: First paragraph of each one's help.
    """

    def __init__(self, path: str) -> None:
        self._above = f"{path} " if path else ""
        self._built: dict[str, Any] = {}
        self.lines: dict[str, str] = {}
        for full, (_, line) in COMMANDS.items():
            if full.startswith(self._above):
                name, _, inner = full.removeprefix(self._above).partition(" ")
                self.lines[name] = GROUPS[name] if inner else line

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            line, full = self.lines[name], self._above + name
            self._built[name] = (
                Group(full, name=name, help=line, no_args_is_help=True) if full in GROUPS else _built(full)
            )
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)


def _built(full: str) -> Any:
    """Return a command by its full name, with its examples at the end of its help."""
    module, _, function = COMMANDS[full][0].partition(":")
    examples = [f"autoscaler {example}" for example in EXAMPLES.get(full, ())]
    # Typer joins lines that have no empty line between them.
    epilog = "\n\n".join(["For example:", *examples]) if examples else None
    alone = typer.Typer(add_completion=False)
    alone.command(full.rpartition(" ")[2], epilog=epilog)(
        getattr(import_module(f"autoscaler.cli.{module}"), function)
    )
    return typer.main.get_command(alone)
