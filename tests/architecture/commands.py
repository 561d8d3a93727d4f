"""The commands of the program as click sees them."""

from functools import cache

import typer


@cache
def commands(app):
    """All commands by their full names."""
    return dict(_walk(typer.main.get_command(app), ()))


def _walk(command, path):
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield " ".join(path), command
        return
    for name, inner in subcommands.items():
        yield from _walk(inner, (*path, name))


def options(command):
    """Options and arguments except `--help`."""
    return [parameter for parameter in command.params if parameter.name != "help"]
