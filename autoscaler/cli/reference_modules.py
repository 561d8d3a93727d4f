"""The index of modules: one line each, from their docstrings.

Rules of this file: the line of a module is the first paragraph of its docstring. A module without a docstring is an error.
"""

from __future__ import annotations

import ast
import inspect
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import autoscaler

CODE = Path(autoscaler.__file__).parent


@dataclass(frozen=True, slots=True)
class Package:
    """A package and its modules.

    Attributes:
        path: Below `autoscaler/`, with slashes; empty for `autoscaler` itself.
        what: First paragraph of the docstring of its `__init__`.
        modules: Name and line of each module, sorted by name.
    """

    path: str
    what: str
    modules: tuple[tuple[str, str], ...]


def packages(code: Path = CODE) -> Iterator[Package]:
    """Yield every package below a folder, the folder itself first and each package before its subpackages, sorted by name.

    Raises:
        ValueError: A module has no docstring.
    """
    for folder in sorted({file.parent for file in code.rglob("*.py")}):
        modules = tuple(
            (file.stem, said_first(file)) for file in sorted(folder.glob("*.py")) if file.stem != "__init__"
        )
        yield Package(
            folder.relative_to(code).as_posix().strip("."), said_first(folder / "__init__.py"), modules
        )


def said_first(file: Path) -> str:
    """Return the first paragraph of a module's docstring, as one line.

    Raises:
        ValueError: The module has no docstring.
    """
    # Only so far as the docstring goes: to parse all of every module takes ten times as long.
    with file.open(encoding="utf-8") as lines:
        tokens = tokenize.generate_tokens(lines.readline)
        first = next(token for token in tokens if token.type not in (tokenize.COMMENT, tokenize.NL))
    said = inspect.cleandoc(ast.literal_eval(first.string)) if first.type == tokenize.STRING else ""
    if not said:
        raise ValueError(f"{file}: has no docstring; its first sentence says what the module is")
    return " ".join(said.split("\n\n")[0].split())
