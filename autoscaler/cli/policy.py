"""`validate` and `policy …`: checks and explains policies without running anything, or replays those of a folder for a page.

Exit codes: 0 valid (there may be warnings), 1 a policy is invalid or unknown, 2 wrong usage.

Rules of this file: presentation only, with one problem per line in the form that editors can jump to. `config` decides
what is valid, and `simulator.scenarios.shipped` replays. Both are imported only when a command runs, so that `--help` stays quick.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import JSON, PAGE
from autoscaler.cli.output import errors_in_words, write_text
from autoscaler.words import counted

if TYPE_CHECKING:
    from autoscaler.config.documents import Problem
    from autoscaler.config.loading import PolicySet

_YAML = {".yaml", ".yml"}
TICK_OPTION = typer.Option(
    "--tick",
    min=1,
    max=3600,
    help="Length of a tick in seconds, which some checks use (default: setting tick_s).",
)


def validate(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A policy file, or a folder of them with its defaults.yaml (default: setting policies)."
        ),
    ] = None,
    as_json: JSON = False,
    tick_s: Annotated[float | None, TICK_OPTION] = None,
) -> None:
    """Check policies and print each problem as file:line:column: error: what is wrong; what to do.

    If the settings name places, as for `run`, it also checks that each policy is in one of them.
    """
    places = _places("validate", quietly=path is not None and tick_s is not None)
    path, tick_s = _settled("validate", path, tick_s)
    if not path.exists():
        raise typer.BadParameter(
            f"there is no file or folder {path}; name a policy, or a folder with one YAML file per fleet",
            param_hint="PATH",
        )
    from autoscaler.config.compiling_objective import objective_in_words

    loaded = _load(path, tick_s, places)
    if as_json:
        typer.echo(json.dumps({"version": FORM, **_report(loaded)}, indent=2))
    else:
        _print_problems(loaded)
        for line in filter(None, map(objective_in_words, loaded.policies)):
            typer.echo(line)
        typer.echo(_summary(loaded))
    if loaded.errors:
        raise typer.Exit(1)


def policy_show(
    name: Annotated[str, typer.Argument(help="Name of a fleet, or a policy file.", metavar="FLEET|FILE")],
    directory: Annotated[
        Path | None,
        typer.Option("--policies", help="Folder of policies in which to find a fleet (setting policies)."),
    ] = None,
    as_json: JSON = False,
    tick_s: Annotated[float | None, TICK_OPTION] = None,
) -> None:
    """Print a fleet's effective policy: every field, defaults included, as YAML that loads again."""
    from autoscaler.config.compiling_objective import objective_in_words
    from autoscaler.config.rendering import effective_data, effective_yaml

    directory, tick_s = _settled("policy show", directory, tick_s)
    is_file = Path(name).suffix in _YAML or Path(name).is_file()
    loaded = _load(Path(name) if is_file else directory, tick_s)
    policy = next((policy for policy in loaded.policies if is_file or policy.fleet == name), None)
    if policy is None:
        _print_problems(loaded, to_stderr=True)
        if not is_file and (loaded.policies or not loaded.errors):
            typer.echo(_unknown_fleet(name, directory, loaded), err=True)
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(effective_data(policy), indent=2))
        return
    typer.echo(
        f"# The effective policy of fleet {policy.fleet}, from {loaded.files[policy.fleet]} and its defaults."
    )
    if policy.objective is not None:
        typer.echo(f"# {objective_in_words(policy)}.")
    typer.echo(effective_yaml(policy), nl=False)


def policy_schema() -> None:
    """Print the JSON Schema of policy files, for editors that complete and check YAML."""
    from autoscaler.config.rendering import policy_json_schema

    typer.echo(json.dumps(policy_json_schema(), indent=2))


def policy_results(
    folder: Annotated[Path, typer.Argument(help="Folder of policies.", metavar="DIR")] = Path("policies"),
    recipes: Annotated[
        Path, typer.Option(help="Folder of traffic recipes, named after the policies.", metavar="DIR")
    ] = Path("simulations/recipes"),
    out: PAGE = None,
) -> None:
    """Replay each policy of a folder on generated traffic of its kind, compare it with peers, and write a page."""
    with errors_in_words("policy"):
        from autoscaler.cli.progress import Bar
        from autoscaler.simulator.scenarios.shipped import page, section, shipped_in

        sections, found = [], shipped_in(folder, recipes)
        for number, shipped in enumerate(found):
            with Bar(f"replaying {shipped.name}", quiet=False) as bar:
                sections.append(section(shipped))
                bar((number + 1) / len(found))
        target = out or folder / "RESULTS.md"
        write_text(target, page(sections))
        typer.echo(f"{target}")


def _settled(command: str, path: Path | None, tick_s: float | None) -> tuple[Path, float]:
    """Return the path and tick, with the settings of this machine's daemon in place of values that were not given."""
    if path is not None and tick_s is not None:
        return path, tick_s
    from autoscaler.settings import load_settings

    with errors_in_words(command):
        settings = load_settings(policies=path)
    return settings.policies, settings.tick_s if tick_s is None else tick_s


def _places(command: str, *, quietly: bool) -> tuple[str, ...] | None:
    """Return the names of the places in the settings, or None if they name none.

    Args:
        command: Name of the command, for its error message.
        quietly: Return None for invalid settings too, instead of ending the command.
    """
    from autoscaler.errors import ConfigError
    from autoscaler.settings import load_settings

    with errors_in_words(command):
        try:
            return load_settings().place_names
        except ConfigError:
            if quietly:
                return None
            raise


def _load(path: Path, tick_s: float, places: tuple[str, ...] | None = None) -> PolicySet:
    from autoscaler.clock import SystemClock
    from autoscaler.config.loading import load_policies, load_policy

    now_s = SystemClock().now()
    if path.is_dir() or not (path.exists() or path.suffix in _YAML):
        return load_policies(path, tick_s, now_s, places=places)
    return load_policy(path, tick_s=tick_s, now_s=now_s, places=places)


def _print_problems(loaded: PolicySet, *, to_stderr: bool = False) -> None:
    if not (loaded.errors or loaded.warnings):
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=to_stderr, soft_wrap=True, highlight=False)
    for problem in (*loaded.errors, *loaded.warnings):
        line = Text(str(problem))
        line.stylize("red" if problem.severity == "error" else "yellow", 0, str(problem).index(": ") + 1)
        console.print(line)


def _summary(loaded: PolicySet) -> str:
    acting = sum(policy.act for policy in loaded.policies)
    shadow = len(loaded.policies) - acting
    parts = [counted(len(loaded.policies), "policy is valid", "policies are valid")]
    if loaded.policies:
        parts += [
            f"{acting} {'acts' if acting == 1 else 'act'}",
            f"{shadow} {'runs' if shadow == 1 else 'run'} in shadow",
        ]
    if loaded.errors:
        files = len({problem.mark.file for problem in loaded.errors})
        parts.append(f"{counted(len(loaded.errors), 'error', 'errors')} in {counted(files, 'file', 'files')}")
    if loaded.warnings:
        parts.append(counted(len(loaded.warnings), "warning", "warnings"))
    return ", ".join(parts)


def _unknown_fleet(name: str, directory: Path, loaded: PolicySet) -> str:
    known = [policy.fleet for policy in loaded.policies]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known[:20]) or 'none'}"
    return f"error: {directory} has no valid policy of a fleet {name}; {hint}"


def _report(loaded: PolicySet) -> dict[str, Any]:
    return {
        "valid": not loaded.errors,
        "policies": [
            {"fleet": policy.fleet, "file": str(loaded.files[policy.fleet]), "act": policy.act}
            for policy in loaded.policies
        ],
        "errors": [_problem(problem) for problem in loaded.errors],
        "warnings": [_problem(problem) for problem in loaded.warnings],
    }


def _problem(problem: Problem) -> dict[str, object]:
    return {
        "file": str(problem.mark.file),
        "line": problem.mark.line,
        "column": problem.mark.column,
        "severity": str(problem.severity),
        "message": problem.message,
        "advice": problem.advice,
    }
