"""Loads YAML as plain data that remembers the position of each key and value.

A YAML library's own loader does not suffice: an error must point at file, line and column even after two files were
merged, a duplicate key must be refused, and a hostile or mangled file must end in a message. So ruamel.yaml (YAML 1.2)
composes the text to nodes, which are turned into data here.

Rules of this file: it knows nothing about policies. All problems of a text are collected, and none is raised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
MAX_VALUES = 20_000
MAX_BRACKETS = 100
MAX_DIGITS = 100
"""Limits of one file. A policy has a few hundred values; more is a mistake or an attack (nested aliases)."""
MOST_PROBLEMS = 50
"""Most problems of one kind in a file that are described; the others are counted. A suggestion takes a millisecond, and the daemon
checks policies too."""

YamlPath: TypeAlias = tuple[str | int, ...]


class Severity(StrEnum):
    """How serious a problem is: an error makes a policy unusable, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in a file, described for a person.

    Attributes:
        mark: Its place.
        message: What is wrong.
        advice: What to do; empty if the message says it.
        severity: Error or warning.
    """

    mark: Mark
    message: str
    advice: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        """Return `file:line:column: error: message; advice`, on one line."""
        where = f"{self.mark.file}:{self.mark.line}:{self.mark.column}"
        return f"{where}: {self.severity}: {self.message}{f'; {self.advice}' if self.advice else ''}"


@dataclass(slots=True)
class Document:
    """The data of a file, with the places of its parts.

    Attributes:
        file: The file.
        data: Plain dicts, lists, strings, numbers, booleans and None.
        keys, values: Place of each key and of each value, by path.
        problems: Problems of the text.
    """

    file: Path
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[YamlPath, Mark] = field(default_factory=dict)
    values: dict[YamlPath, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: YamlPath, *, of_key: bool = False) -> Mark:
        """Return the place of this path, or of the nearest parent that was written."""
        while path:
            found = (self.keys if of_key else self.values).get(path) or self.keys.get(path)
            if found:
                return found
            path, of_key = path[:-1], True
        return Mark(self.file)

    def merged_over(self, below: Document) -> Document:
        """Return this document merged over another: sections are merged, lists and single values replaced."""
        merged = Document(self.file, _merge(below.data, self.data))
        for mine, theirs, to in (
            (self.keys, below.keys, merged.keys),
            (self.values, below.values, merged.values),
        ):
            to.update({path: mark for path, mark in theirs.items() if not self._replaces(path)})
            to.update(mine)
        return merged

    def part(self, key: str) -> Document:
        """Return one section as a document; empty if it is missing or not a section."""
        inner = self.data.get(key)
        part = Document(self.file, inner if isinstance(inner, dict) else {})
        for mine, to in ((self.keys, part.keys), (self.values, part.values)):
            to.update({path[1:]: mark for path, mark in mine.items() if len(path) > 1 and path[0] == key})
        return part

    def _replaces(self, path: YamlPath) -> bool:
        """Return whether this document has a value that is not a section at this path or above it."""
        at: Any = self.data
        for step in path:
            if not isinstance(at, dict):
                return True
            if step not in at:
                return False
            at = at[step]
        return False


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def read_document(file: Path, instead: bytes | None = None) -> Document:
    """Read a file whose top level is a section. Problems are recorded in the document, never raised.

    Args:
        file: Path of the file.
        instead: Content to use in place of the file's; None reads the file.
    """
    document = Document(file)
    text = _read_text(document, instead)
    if text is not None:
        _fill(document, text)
        shown = document.problems[:MOST_PROBLEMS]
        document.problems = with_rest(shown, len(document.problems) - len(shown))
    return document


def with_rest(problems: list[Problem], left: int) -> list[Problem]:
    """Return the problems of a file, followed by one that says how many more there are, if any are left."""
    if not left:
        return problems
    last = max((problem.mark for problem in problems), key=lambda mark: (mark.line, mark.column))
    return [*problems, Problem(last, f"{left:,} more problems in this file", "correct those above first")]


def _read_text(document: Document, instead: bytes | None) -> str | None:
    try:
        data = _read(document.file) if instead is None else instead
    except OSError as error:
        document.problems.append(
            Problem(Mark(document.file), f"the file cannot be read: {error.strerror or error}")
        )
        return None
    if len(data) > MAX_BYTES:
        document.problems.append(
            Problem(
                Mark(document.file),
                f"the file is larger than {MAX_BYTES // 1024} KiB",
                "a policy is a page or two",
            )
        )
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        mark = Mark(document.file, line, column)
        document.problems.append(Problem(mark, "the text is not UTF-8", "save the file as UTF-8"))
        return None


def _read(file: Path) -> bytes:
    # Opening a pipe without a writer would block for ever; opened non-blocking, it reads as empty.
    number = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as stream:
        os.set_blocking(number, True)
        return stream.read(MAX_BYTES + 1)


def _fill(document: Document, text: str) -> None:
    if _bracket_depth(text) > MAX_BRACKETS:
        document.problems.append(Problem(Mark(document.file), "brackets are nested too deeply for a policy"))
        return
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        document.problems.append(_syntax_problem(document.file, error, text))
        return
    except ReaderError as error:
        document.problems.append(_character_problem(document.file, error, text))
        return
    except (YAMLError, ValueError) as error:
        sentence = " ".join(str(error).split())[:200]
        document.problems.append(Problem(Mark(document.file), f"not YAML: {sentence}"))
        return
    except RecursionError:
        document.problems.append(Problem(Mark(document.file), "the text is nested too deeply to be a policy"))
        return
    if root is None or (_scalar(root) is None and isinstance(root, ScalarNode)):
        document.problems.append(Problem(Mark(document.file), "the file is empty", "fill it, or remove it"))
    elif isinstance(root, MappingNode):
        document.data = _Builder(document).section(root, ())
    else:
        kind = "a list" if isinstance(root, SequenceNode) else "a text"
        document.problems.append(
            Problem(
                _mark(document.file, root),
                f"the top level is {kind}",
                "start with keys, such as `fleet: web`",
            )
        )


def _bracket_depth(text: str) -> int:
    """Return how deeply brackets are nested, roughly (brackets in quotes and comments count too).

    The parser's time grows with a power of the nesting; 64 KiB of open brackets would keep it busy for very long.
    """
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


def _character_problem(file: Path, error: ReaderError, text: str) -> Problem:
    before = text[: error.position]
    mark = Mark(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
    character = text[error.position : error.position + 1]
    said = f"U+{ord(character):04X}" if character else "a character"
    return Problem(
        mark, f"not YAML: {said} is not text", "remove it; check that the file is complete and a text file"
    )


def _syntax_problem(file: Path, error: MarkedYAMLError, text: str) -> Problem:
    at = error.problem_mark or error.context_mark
    mark = Mark(file, at.line + 1, at.column + 1) if at else Mark(file)
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or (error.problem and "'\\t'" in error.problem):
        return Problem(mark, "a tab where YAML allows none", "indent with spaces")
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return Problem(
        mark, f"not YAML: {' '.join(said.split())}", "check indentation, quotes and colons around this line"
    )


class _Builder:
    """Converts nodes to the data of one document. It counts the values, so that nested aliases cannot expand without end."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._made = 0

    def section(self, node: MappingNode, path: YamlPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                self._refuse(key_node, "a key must be a word")
                continue
            here = (*path, key)
            if key in data:
                first = self._document.keys[here].line
                self._refuse(
                    key_node, f"the key `{key}` appears twice (first in line {first})", "keep one of the two"
                )
                continue
            self._document.keys[here] = _mark(self._document.file, key_node)
            data[key] = self._value(value_node, here)
            if isinstance(value_node, ScalarNode) and not value_node.value and not value_node.style:
                self._document.values.pop(here, None)  # the value is empty, so its place is the key's
        return data

    def _value(self, node: Node, path: YamlPath) -> Any:
        self._made += 1
        if self._made > MAX_VALUES or len(path) > MAX_DEPTH:
            if not any("too many" in problem.message for problem in self._document.problems):
                self._refuse(node, "too many or too deeply nested values for a policy")
            return None
        self._document.values[path] = _mark(self._document.file, node)
        if isinstance(node, MappingNode):
            return self.section(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, at)) for at, item in enumerate(node.value)]
        return _scalar(node)

    def _refuse(self, node: Node, message: str, advice: str = "") -> None:
        self._document.problems.append(Problem(_mark(self._document.file, node), message, advice))


def _mark(file: Path, node: Node) -> Mark:
    return Mark(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(node: Node) -> object:
    """Return a scalar by YAML 1.2's core tags; any other tag (a date, a Python object) stays text."""
    text: str = node.value
    kind = str(node.tag).rpartition(":")[2]
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        # Python refuses to convert very long integers to text, so an error message could not show them.
        if kind == "int" and len(text) <= MAX_DIGITS:
            return int(text, 10) if text.lstrip("+-").isdigit() else int(text, 0)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        pass
    return text


def ancestors(path: YamlPath) -> Iterator[YamlPath]:
    """Yield the path and then each of its parents, nearest first."""
    for length in range(len(path), 0, -1):
        yield path[:length]
