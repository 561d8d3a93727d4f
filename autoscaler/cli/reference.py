"""Writes the references from the code: `python -m autoscaler.cli.reference [--check]`.

References kept by hand soon become wrong. Policy fields, settings, metrics, log lines, reasons and commands are declared once,
with their descriptions, in the modules that use them. This module prints those.

Rules of this file: it describes nothing that the code does not describe itself, and the same code gives the same bytes.
`reference_fields` reads the models of policies and settings.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import autoscaler
from autoscaler.cli.output import FAILED
from autoscaler.cli.reference_fields import Row, policy_sections, setting_rows, settings_toml
from autoscaler.cli.reference_journal import KINDS, kinds_in
from autoscaler.cli.reference_modules import packages

COMMAND = "python -m autoscaler.cli.reference"
_WRITTEN = f"*Written from the code by `{COMMAND}`; do not edit.*"
_LINE = 110


def documents() -> dict[str, str]:
    """Return every generated document by its path in the checkout."""
    return {
        "policies/REFERENCE.md": policy_reference(),
        "deploy/REFERENCE.md": operator_reference(),
        "deploy/autoscaler.toml": settings_toml(COMMAND),
        "simulations/FIGURES.md": figures_reference(),
        "autoscaler/README.md": modules_reference(),
    }


def outdated(root: Path, texts: Mapping[str, str]) -> list[str]:
    """Return the paths of the documents below `root` that are missing or differ from these texts."""
    return [
        path
        for path, text in texts.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def policy_reference() -> str:
    """Return the page of all policy fields."""
    parts = [
        "# Policy fields",
        _WRITTEN,
        (
            "One YAML file per fleet, on top of `defaults.yaml` in the same folder. A field that the fleet's file leaves out is"
            " taken from there, or from the default below if neither file has it. Units are written. *required* means that the"
            " fleet's file or `defaults.yaml` must have it. Writing a section whose default is `off` switches it on;"
            " `{}` takes all of its defaults. Unknown fields are refused. `autoscaler policy show FLEET` prints the effective policy."
        ),
    ]
    for section in policy_sections():
        title = f"## `{section.path}`" if section.path else "## The file"
        parts += [title, section.meaning]
        head = ("field", "how it is written", "range", "default", "meaning")
        parts.append(_table(head, [_policy_cells(row) for row in section.rows]))
    return _document(parts)


def figures_reference() -> str:
    """Return the page of all figures of a score card and of the peers that a policy is compared with."""
    from autoscaler.simulator.judging.forecast_score import FORECAST_FIGURES
    from autoscaler.simulator.judging.score import FIGURES
    from autoscaler.simulator.judging.standings import RIVALS

    figures = (*FIGURES, *FORECAST_FIGURES)
    parts = [
        "# Figures of the score card",
        _WRITTEN,
        (
            "What a replay is judged by. A figure that is not known is `?` and never 0, as where demand or cost are unknown, or"
            " where a run was ended before its end. One that does not apply is `–` (`-` in a terminal): because it is a ratio"
            " to nothing, such as the mean episode where there was none, or because there is nothing to compare that column"
            " with. Both are null in `report.json`, which names the latter in `does_not_apply` of their entry."
        ),
    ]
    for group in dict.fromkeys(figure.group for figure in figures):
        rows = [
            (figure.label, _code(figure.key), figure.unit, figure.better, figure.what)
            for figure in figures
            if figure.group == group
        ]
        parts += [f"## {group}", _table(("figure", "name", "unit", "better", "meaning"), rows)]
    peers = [(rival.name, _code(rival.key), rival.what) for rival in RIVALS]
    parts += ["## Peers", _table(("peer", "name", "rule"), peers)]
    return _document(parts)


def modules_reference() -> str:
    """Return the page with one line for each module."""
    parts = [
        "# Every module, in a line",
        _WRITTEN,
        (
            "For the engineer who looks for the place of something. How the packages work together, and which may import"
            " which, is in [ARCHITECTURE.md](../ARCHITECTURE.md); one tick from its beginning to its end is"
            " [`daemon/loop.py`](daemon/loop.py), `Daemon.tick`. Each module begins with the rules that hold in it."
        ),
    ]
    for package in packages():
        path = f"{package.path}/" if package.path else ""
        rows = [(f"[{name}]({path}{name}.py)", what) for name, what in package.modules]
        parts += [f"## {package.path or 'autoscaler'}", package.what]
        parts += [_table(("module", "is"), rows)] if rows else []
    return _document(parts)


def operator_reference() -> str:
    """Return the page of settings, commands, metrics, events and reasons."""
    parts = ["# Reference for operators", _WRITTEN]
    heads = ("Settings", "Commands", "Metrics", "Log lines", "Journal events", "Reasons", "Words of values")
    parts.append(" · ".join(f"[{head}](#{head.lower().replace(' ', '-')})" for head in heads))
    parts += _settings_part()
    parts += _commands_part()
    parts += _metrics_part()
    parts += _events_part()
    parts += _journal_part()
    parts += _reasons_part()
    parts += _values_part()
    return _document(parts)


def _settings_part() -> list[str]:
    head = ("setting", "environment", "value", "default", "meaning")
    rows = [
        (
            _code(row.path),
            _code(f"AUTOSCALER_{row.path.upper()}"),
            f"{row.form}, {row.range}" if row.range else row.form,
            _code(row.default),
            row.meaning,
        )
        for row in setting_rows()
    ]
    return [
        "## Settings",
        (
            "In `autoscaler.toml` or the environment. The environment overrides the file, and the command line overrides both."
            " `AUTOSCALER_CONFIG` names a file to use instead of `autoscaler.toml` in the working directory."
        ),
        _table(head, rows),
    ]


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────


def _commands_part() -> list[str]:
    from autoscaler.cli.examples import EXAMPLES
    from autoscaler.cli.json_keys import JSON_OF
    from autoscaler.cli.main import app

    program: Any = typer.main.get_command(app)
    parts = ["## Commands", f"{program.help}\n\n{program.epilog}"]
    for name, command in _commands(program, ()):
        parts += [f"### `autoscaler {name}`", command.help or ""]
        parts.append("\n".join(["```", *(f"autoscaler {example}" for example in EXAMPLES[name]), "```"]))
        context = typer.Context(command, info_name=name)
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [
            (_code(" ".join(form.split())), " ".join(words.split())) for form, words in filter(None, records)
        ]
        parts.append(_table(("argument or option", "meaning"), rows))
        if name in JSON_OF:
            parts.append(str(JSON_OF[name]))
    return parts


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name, part in sorted(inner.items()):
        if not part.hidden:
            yield from _commands(part, (*path, name))


# ── metrics and log lines ───────────────────────────────────────────────────────────────────────────────


def _metrics_part() -> list[str]:
    from prometheus_client.metrics import MetricWrapperBase

    from autoscaler.daemon.telemetry import Telemetry

    telemetry = Telemetry()
    rows = []
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase):
            (told,) = metric.describe()
            name = f"{told.name}_total" if told.type == "counter" else told.name
            labels = ", ".join(metric._labelnames)  # noqa: SLF001  the library tells it nowhere else
            rows.append((_code(name), told.type, labels, told.documentation))
    return [
        "## Metrics",
        "At `/metrics`, in Prometheus text. A histogram has the usual `_bucket`, `_sum` and `_count`.",
        _table(("metric", "type", "labels", "meaning"), sorted(rows)),
    ]


def _events_part() -> list[str]:
    from autoscaler.daemon.telemetry import EVENTS

    rows = [(_code(name), words) for name, words in sorted(EVENTS.items())]
    return [
        "## Log lines",
        "The field `event` of a log line; `text` is the sentence for people.",
        _table(("event", "meaning"), rows),
    ]


def _journal_part() -> list[str]:
    rows = [(_code(kind), words) for kind, words in sorted(journal_kinds().items())]
    return [
        "## Journal events",
        (
            "What happened apart from decisions, recorded with time, fleet and a sentence. Events about VMs are also log"
            " lines of the event `vm`, with this word as `kind`; operators' changes are log lines of the event `operator`."
        ),
        _table(("kind", "meaning"), rows),
    ]


def journal_kinds() -> dict[str, str]:
    """Return every kind of journal event that the daemon records, with its meaning, or an empty text if it has none."""
    from autoscaler.daemon.telemetry import EVENTS

    made = kinds_in(Path(autoscaler.__file__).parent / "daemon")
    return {kind: KINDS.get(kind) or EVENTS.get(kind, "") for kind in made}


# ── reasons ─────────────────────────────────────────────────────────────────────────────────────────────


def _reasons_part() -> list[str]:
    from autoscaler.core.types import Reason
    from autoscaler.daemon.decision_sentences import phrase

    meanings, example = member_docs(Reason), _example_tick()
    rows = []
    for stage, function in stages().items():
        for reason in reasons_of(function):
            words = phrase(reason, 3, example)
            rows.append(
                (_code(reason.name.lower()), stage.name.lower(), meanings.get(reason.name, ""), words)
            )
    return [
        "## Reasons",
        (
            "Why a number is what it is: the label `reason` of `autoscaler_reasons_total`, and what `autoscaler explain` shows"
            " stage by stage, in the order of this table. The last column is an example with made-up numbers."
        ),
        _table(("reason", "stage", "meaning", "for example"), rows),
    ]


def stages() -> dict[Any, Any]:
    """Return the function of each stage of a decision, in order; a stage's function has the stage's name."""
    from autoscaler.core import guards, shared_limits, sizing, trust
    from autoscaler.core.objective import economic
    from autoscaler.core.types import Stage

    named = {**vars(economic), **vars(sizing), **vars(trust), **vars(guards), **vars(shared_limits)}
    return {stage: named[stage.name.lower()] for stage in Stage}


def reasons_of(function: Any) -> list[Any]:
    """Return the reasons that a stage may give, in the order of their numbers, found by reading its source.

    Names of the module that the function uses (tables of reasons, classes, private functions) are followed in turn.
    """
    from autoscaler.core.types import Reason

    module = ast.parse(inspect.getsource(inspect.getmodule(function)))  # type: ignore[arg-type]
    parts: dict[str, list[ast.AST]] = {}
    for node in module.body:
        if isinstance(node, ast.Assign):
            for name in _names(node.targets[0]):
                parts.setdefault(name, []).append(node.value)
        elif isinstance(node, ast.ClassDef) or (
            isinstance(node, ast.FunctionDef) and node.name.startswith("_")
        ):
            parts.setdefault(node.name, []).append(node)
    named: set[str] = set()
    seen: set[str] = set()
    left: list[ast.AST] = [ast.parse(textwrap.dedent(inspect.getsource(function)))]
    while left:
        part = left.pop()
        named |= _reasons_named(part)
        for name in _names(part) - seen:
            seen.add(name)
            left += parts.get(name, [])
    return [reason for reason in Reason if reason.name in named and reason is not Reason.NONE]


def _names(tree: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(tree) if isinstance(found, ast.Name)}


def _reasons_named(tree: ast.AST) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }


def member_docs(enum: type) -> dict[str, str]:
    """Return the docstring below each member of an enum, by member name; members without one are left out."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(enum))).body
    assert isinstance(tree, ast.ClassDef)
    told = {}
    for member, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(member, ast.Assign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            (name,) = (target.id for target in member.targets if isinstance(target, ast.Name))
            told[name] = " ".join(str(after.value.value).split())
    return told


def _example_tick() -> Any:
    from autoscaler.core.types import Freshness, Stage
    from autoscaler.ports import FleetTick

    return FleetTick(
        fleet="web", demand=250.0, observed_at_s=0.0, freshness=int(Freshness.FRESH), coverage=0.5, censored=False,
        in_service=3, starting=0, draining=0, stopping=0, stopped=5, provisioned=8, stoppable=3, forecast=250.0,
        forecast_hi=300.0, wish=3, desired=4, start=0, provision=1, stop=0, warm_target=2, capacity=300.0, shortage=0.0,
        cost=0.0, stages=(3,) * len(Stage), reasons=(0,) * len(Stage), sentence="",
    )  # fmt: skip


def _values_part() -> list[str]:
    from autoscaler import ports
    from autoscaler.core.types import Freshness

    parts = [
        "## Words of values",
        "Values in labels, `--json` and the journal whose meaning is not obvious.",
    ]
    for title, enum in (
        ("Outcome of an action", ports.OutcomeKind),
        ("State of a VM", ports.VmState),
        ("Freshness of metrics", Freshness),
    ):
        told = member_docs(enum)
        rows = [(_code(member.name.lower()), told.get(member.name, "")) for member in enum]
        parts += [f"### {title}", _table(("value", "meaning"), [row for row in rows if row[1]])]
    return parts


# ── Markdown ────────────────────────────────────────────────────────────────────────────────────────────


def _policy_cells(row: Row) -> tuple[str, ...]:
    return _code(row.path), row.form, row.range, _code(row.default), row.meaning


def _code(text: str) -> str:
    return text if not text or text.startswith("*") else f"`{text}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _document(parts: list[str]) -> str:
    return "\n\n".join(_filled(part) for part in parts if part) + "\n"


def _filled(part: str) -> str:
    if part.startswith(("|", "#", "```")):
        return part
    paragraphs = part.split("\n\n")
    return "\n\n".join(
        textwrap.fill(p, _LINE, break_long_words=False, break_on_hyphens=False) for p in paragraphs
    )


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where a document is not current.")
    ] = False,
) -> None:
    """Write the references, the index of modules and the annotated settings file from the code."""
    root = Path(autoscaler.__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        typer.echo(f"reference: {root} is not a checkout; the documents belong to one", err=True)
        raise typer.Exit(FAILED)
    texts = documents()
    stale = outdated(root, texts)
    if check and stale:
        typer.echo(f"not current: {', '.join(stale)}; run `{COMMAND}` and commit what it writes", err=True)
        raise typer.Exit(FAILED)
    for path in stale:
        (root / path).write_text(texts[path], encoding="utf-8")
        typer.echo(f"written: {path}")


if __name__ == "__main__":
    typer.run(main)
