"""Claims of the architecture about the code, checked by reading the code."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import autoscaler
from autoscaler.core import decide as core_decide
from autoscaler.core import forecast as core_forecast

PACKAGE = Path(autoscaler.__file__).parent
ROOT = PACKAGE.parent
MODULE_LINES = 500
CORE_FUNCTION_LINES = 60

CORE_MAY_IMPORT = {
    "__future__", "collections", "collections.abc", "dataclasses", "enum", "itertools", "math",
    "numpy", "numpy.typing", "operator", "typing",
}  # fmt: skip

BANNED_WORDS = {"node", "worker", "server", "replica", "cluster", "job", "util", "helper", "manager"}
"""Words that mean something else elsewhere, and names that say nothing; plurals are meant too."""
BANNED_PAIRS = ("scale_up", "scale_down", "scales_up", "scaling_up", "scaling_down")


def modules(folder):
    found = sorted(folder.rglob("*.py"))
    assert found, folder
    return found


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("folder", ["autoscaler", "benchmarks", "tests"])
def test_no_module_is_longer_than_a_reader_bears(folder):
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(ROOT / folder)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_functions_of_core_are_short():
    long = [
        f"{where(path, node)} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in modules(PACKAGE / "core")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > CORE_FUNCTION_LINES
    ]
    assert long == []


def test_every_module_opens_by_saying_why_it_exists():
    assert [str(path) for path in modules(PACKAGE) if not ast.get_docstring(parsed(path))] == []


# ── purity of core ──────────────────────────────────────────────────────────────────────────────────────


def imported(tree):
    """(line's node, module) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where things come from"
            yield node, node.module


def test_core_imports_numbers_values_and_itself():
    strange = [
        f"{where(path, node)} imports {name}"
        for path in modules(PACKAGE / "core")
        for node, name in imported(parsed(path))
        if name not in CORE_MAY_IMPORT and name.partition("core")[0] != "autoscaler."
    ]
    assert strange == []


def test_core_neither_asks_the_time_nor_draws_nor_waits_nor_speaks():
    calls = {
        "now",
        "time",
        "monotonic",
        "perf_counter",
        "sleep",
        "random",
        "default_rng",
        "open",
        "print",
        "input",
    }
    found = []
    for path in modules(PACKAGE / "core"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global):
                found.append(f"{where(path, node)} {type(node).__name__}")
            if isinstance(node, ast.Attribute) and node.attr == "random":
                found.append(f"{where(path, node)} {ast.unparse(node)}")
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                if name in calls:
                    found.append(f"{where(path, node)} {ast.unparse(node.func)}")
    assert found == []


def test_core_uses_no_sums_whose_result_depends_on_the_number_of_lanes():
    """Matrix products and reductions over lanes are not bit-stable across lane counts."""
    found = [
        f"{where(path, node)} {ast.unparse(node)}"
        for path in modules(PACKAGE / "core")
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult))
        or (isinstance(node, ast.Attribute) and node.attr in {"dot", "matmul", "einsum", "tensordot", "mean"})
    ]
    assert found == []


# ── what the daemon imports ─────────────────────────────────────────────────────────────────────────────

DAEMON_NEEDS = {
    "aiobotocore", "aiohttp", "botocore", "numpy", "prometheus_client", "pydantic", "pydantic_core", "pydantic_settings", "ruamel",
    "structlog", "tenacity",
}  # fmt: skip
"""Libraries that modules of the daemon may import at once. Others are imported where they are used."""

AT_ONCE = re.compile(r"^(?:from|import) ([\w.]+)(?: import .*| as \w+)?$", re.MULTILINE)


def test_the_daemon_imports_at_once_only_what_it_needs():
    """The first tick after a restart waits for all imports."""
    found = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules(PACKAGE)
        if path.relative_to(PACKAGE).parts[0] not in {"cli", "simulator", "cloud", "__main__.py"}
        for name in AT_ONCE.findall(path.read_text(encoding="utf-8"))
        if (root := name.partition(".")[0]) not in {"autoscaler", *DAEMON_NEEDS, *sys.stdlib_module_names}
        or (root == "autoscaler" and name.split(".")[1:2] in (["cli"], ["simulator"]))
    }
    assert found == set()


# ── one decision ────────────────────────────────────────────────────────────────────────────────────────


def test_the_daemon_and_the_virtual_runs_call_the_same_function_objects():
    from autoscaler.daemon import fleets, loop
    from autoscaler.simulator.lanes import engine as lanes
    from autoscaler.simulator.lanes import outlooks
    from autoscaler.simulator.replay import loopback

    assert fleets.decide is lanes.decide is core_decide.decide
    assert fleets.step is outlooks.step is core_forecast.step
    assert loop.Fleets is fleets.Fleets
    assert loopback.Daemon is loop.Daemon


def test_decide_and_step_are_called_by_the_daemon_and_the_lanes_only():
    """And by the checks, which compute again what these have decided; `relived` steps beside the loop, for it."""
    callers = {
        str(path.relative_to(PACKAGE))
        for path in modules(PACKAGE)
        for _, name in imported(parsed(path))
        if name in {"autoscaler.core.decide", "autoscaler.core.forecast"} and "core" not in path.parts
    }
    engines = {name for name in callers if not name.startswith("simulator/checks/")}
    daemon = {"daemon/fleets.py", "daemon/past_fleets.py"}
    assert engines == daemon | {"simulator/lanes/engine.py", "simulator/lanes/outlooks.py"}


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────


def public_names(tree):
    """(node, name) of the classes, functions, arguments, attributes and constants that others may use."""
    stack = [tree]
    while stack:
        for node in ast.iter_child_nodes(stack.pop()):
            name = getattr(node, "name", "") or ""
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if name.startswith("_") and not name.startswith("__"):
                    continue
                yield node, name
                if not isinstance(node, ast.ClassDef):
                    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                    yield from ((node, argument.arg) for argument in arguments)
                    yield from own_attributes(node)
                    continue
                stack.append(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                goals = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from ((node, goal.id) for goal in goals if isinstance(goal, ast.Name))
            elif isinstance(node, ast.If | ast.Try | ast.With):
                stack.append(node)


def own_attributes(function):
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and not node.attr.startswith("_")
        ):
            yield node, node.attr


def words_of(name):
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().strip("_").split("_")


def is_banned(name):
    return any(
        word in BANNED_WORDS or word.removesuffix("s") in BANNED_WORDS for word in words_of(name)
    ) or any(pair in "_".join(words_of(name)) for pair in BANNED_PAIRS)


def is_bare(name):
    """`target` and `pool` need the word that says which."""
    return name.lower().strip("_") in {"target", "targets", "pool", "pools"}


@pytest.mark.parametrize(
    ("name", "banned"),
    [
        ("WebServer", True), ("node_ids", True), ("utils", True), ("scale_up_s", True), ("JobQueue", True),
        ("scale_to_vms", False), ("in_service", False), ("observed_at_s", False), ("scaled_up", False),
    ],
)  # fmt: skip
def test_the_check_of_words_finds_what_it_should(name, banned):
    assert is_banned(name) is banned


def test_public_names_use_the_words_of_the_field():
    found = []
    for path in modules(PACKAGE):
        relative = path.relative_to(PACKAGE)
        found += [
            str(relative) for part in relative.with_suffix("").parts if is_banned(part) or is_bare(part)
        ]
        found += [
            f"{where(path, node)} {name}"
            for node, name in public_names(parsed(path))
            if is_banned(name) or is_bare(name)
        ]
    assert found == []


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────


def layers():
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (c for c in document["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return {name.strip() for layer in contract["layers"] for name in re.split(r"[|:]", layer)}


def test_every_module_of_the_cloud_has_its_layer():
    there = {
        f"autoscaler.cloud.{path.stem}"
        for path in (PACKAGE / "cloud").glob("*.py")
        if path.stem != "__init__"
    }
    named = {name for name in layers() if name.startswith("autoscaler.cloud.")}
    assert named == there


def test_every_package_and_module_has_its_layer_or_may_be_used_by_all():
    # The cloud has its layers by module, see above.
    anywhere = {f"autoscaler.{name}" for name in ("at_once", "errors", "settings", "words", "cloud")}
    there = {f"autoscaler.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    there |= {f"autoscaler.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    named = {name for name in layers() if not name.startswith("autoscaler.cloud.")}
    assert there == named | anywhere


def test_every_adapter_but_those_of_aws_is_kept_from_its_library():
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (
        c for c in document["tool"]["importlinter"]["contracts"] if "aiobotocore stays" in c["name"]
    )
    adapters = {
        f"autoscaler.{folder}.{path.stem}"
        for folder in ("providers", "sources")
        for path in (PACKAGE / folder).glob("*.py")
        if path.stem != "__init__" and not path.stem.startswith("cloudwatch")
    }
    assert adapters <= set(contract["source_modules"])


def test_only_the_composition_roots_know_concrete_adapters():
    """The daemon, the web pages and core see ports; adapters are wired above them."""
    concrete = re.compile(r"autoscaler\.(providers|sources|store|balancers)\.(?!lock)")
    found = [
        f"{where(path, node)} imports {name}"
        for folder in ("core", "daemon", "web", "config", "traces")
        for path in modules(PACKAGE / folder)
        for node, name in imported(parsed(path))
        if concrete.match(f"{name}.")
    ]
    assert found == []
