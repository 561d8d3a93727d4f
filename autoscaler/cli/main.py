"""The command line: all commands, and the single entry point.

Exit codes of all commands: 0 success, 1 failure (the reason is on standard error), 2 wrong usage, 130 interrupted
(the finished part is shown and written, and marked as a part). Programs read `--json`.
"""

from __future__ import annotations

import json
import platform
import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from autoscaler.cli import (
    benchmark,
    check,
    cloud,
    demo,
    doctor,
    events,
    explain,
    export,
    operate,
    plan,
    policy,
    policy_results,
    recommend,
    replay,
    run,
    scenario,
    shadow,
    status,
    sweep,
    trace,
    trace_import,
    trace_record,
    trace_synth,
    warm_pool,
)
from autoscaler.cli.examples import show_examples
from autoscaler.cli.pipes import ends_with_its_reader, speak_any_encoding


class Commands(TyperGroup):
    """The root command group. It rewords messages of the option parser before they are shown."""

    def invoke(self, ctx: Any) -> Any:
        """Run the selected command; reword a `typer.BadParameter` and raise it again."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _in_words(error.message)
            raise


_CHECKER_SAYS = (
    (r"^Value error, ", ""),
    (r"^Input should be a valid integer.*", "it is not a whole number"),
    (r"^Input should be a valid number.*", "it is not a number"),
    (r"^Input should be greater than or equal to ", "it must be at least "),
    (r"^Input should be less than or equal to ", "it must be at most "),
    (r"^Input should be (greater|less) than ", r"it must be \1 than "),
)
"""Patterns of pydantic's messages about option values, each with this program's wording."""


def _in_words(message: str) -> str:
    for theirs, ours in _CHECKER_SAYS:
        message = re.sub(theirs, ours, message, flags=re.DOTALL)
    return message


app = typer.Typer(
    name="autoscaler",
    cls=Commands,
    help="Starts and stops already provisioned VMs to meet demand, and says why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `autoscaler demo`. Exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted.",
)
policies = typer.Typer(no_args_is_help=True, help="Inspect policies.")
shadows = typer.Typer(
    no_args_is_help=True, help="Inspect fleets in shadow, which are decided on but not changed."
)
traces = typer.Typer(no_args_is_help=True, help="Make and inspect traces: recorded or generated demand.")

app.command()(run.run)
app.command()(demo.demo)
app.command()(cloud.cloud)
app.command()(policy.validate)
app.command()(doctor.doctor)
policies.command("show")(policy.policy_show)
policies.command("schema")(policy.policy_schema)
policies.command("results")(policy_results.policy_results)
app.add_typer(policies, name="policy")
app.command()(status.status)
app.command()(explain.explain)
app.command()(operate.pause)
app.command()(operate.resume)
app.command()(operate.override)
app.command()(operate.operations)
app.command()(events.events)
app.command()(export.export)
shadows.command("report")(shadow.shadow_report)
app.add_typer(shadows, name="shadow")
app.command()(replay.replay)
app.command()(replay.compare)
app.command()(sweep.sweep)
app.command()(recommend.recommend)
app.command()(benchmark.benchmark)
app.command()(plan.plan)
app.command()(check.check)
app.command()(replay.report)
traces.command("info")(trace.info)
traces.command("import")(trace_import.import_trace)
traces.command("cut")(trace.cut)
traces.command("merge")(trace.merge)
traces.command("record")(trace_record.record)
traces.command("synth")(trace_synth.synth)
app.add_typer(traces, name="trace")
app.add_typer(scenario.app, name="scenario")
app.add_typer(warm_pool.app, name="pool")


def _show_version(asked: bool) -> None:
    """Print the name and version in one line and exit, if `--version` was given."""
    if asked:
        from importlib.metadata import version as of

        typer.echo(f"autoscaler {of('vm-autoscaler')}")
        raise typer.Exit


@app.callback()
def begin(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit."),
    ] = False,
) -> None:
    """Starts and stops already provisioned VMs to meet demand, and says why."""


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
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


show_examples(app)


def main() -> None:
    """Run the command line; entry point of the installed command."""
    speak_any_encoding()
    with ends_with_its_reader():
        app()
