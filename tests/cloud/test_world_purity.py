"""The world stays pure: its modules import values and numbers, never the clock, I/O or an event loop."""

import ast
from pathlib import Path

import pytest

import autoscaler.cloud

FOLDER = Path(autoscaler.cloud.__file__).parent
PURE = {
    "billing", "buckets", "calls", "faults", "lifecycle", "physics", "places", "rules", "templates", "vms", "world"
}  # fmt: skip
ALLOWED = {
    "__future__", "collections", "collections.abc", "dataclasses", "datetime", "enum", "hashlib", "heapq", "math",
    "numpy", "re", "typing", "autoscaler.errors", "autoscaler.ports", *(f"autoscaler.cloud.{name}" for name in PURE),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_imports_nothing_else(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - ALLOWED == set()


def test_no_module_is_long():
    assert max(len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")) <= 500
