"""The command line: the single entry point.

Exit codes of all commands: 0 success, 1 failure (the reason is on standard error), 2 wrong usage, 130 interrupted
(the finished part is shown and written, and marked as a part). Programs read `--json`.
"""

from __future__ import annotations

import gc
import re
from typing import Annotated, Any

import typer

from autoscaler.cli.commands import Group
from autoscaler.cli.pipes import ends_with_its_reader, speak_any_encoding


class Commands(Group):
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


_COLLECTED_AFTER = 20_000
"""Objects made before the collector looks at them; Python's usual number is 700."""


def main() -> None:
    """Run the command line; entry point of the installed command."""
    # Imports and parsers make many objects that stay. To look for garbage among them so often took a tenth of the time of a
    # short command, and a fifth of the daemon's start.
    gc.set_threshold(_COLLECTED_AFTER, *gc.get_threshold()[1:])
    speak_any_encoding()
    with ends_with_its_reader():
        app()
