"""The index of modules: one line each, from their docstrings.

Rules of this file: the first paragraph of a module's docstring is its line; a module without one has no business here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import autoscaler

CODE = Path(autoscaler.__file__).parent


@dataclass(frozen=True, slots=True)
class Package:
    """A folder of the code.

    Attributes:
        path: Below `autoscaler/`, with slashes; empty for the code's own folder.
        what: What it is, as its `__init__` says.
        modules: Name and line of each of its modules, by name.
    """

    path: str
    what: str
    modules: tuple[tuple[str, str], ...]


def packages(code: Path = CODE) -> Iterator[Package]:
    """Every package below a folder, the folder first and each before those within it, by name.

    Raises:
        ValueError: A module does not say what it is.
    """
    for folder in sorted({file.parent for file in code.rglob("*.py")}):
        modules = tuple(
            (file.stem, said_first(file)) for file in sorted(folder.glob("*.py")) if file.stem != "__init__"
        )
        yield Package(
            folder.relative_to(code).as_posix().strip("."), said_first(folder / "__init__.py"), modules
        )


def said_first(file: Path) -> str:
    """The first paragraph of a module's docstring, on one line.

    Raises:
        ValueError: There is none.
    """
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not said:
        raise ValueError(f"{file}: has no docstring; its first sentence says what the module is")
    return " ".join(said.split("\n\n")[0].split())
