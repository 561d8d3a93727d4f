"""ARCHITECTURE.md and the index of modules refer only to what exists."""

import re
from pathlib import Path

import pytest

import autoscaler
from autoscaler.cli.reference_modules import packages, said_first

CODE = Path(autoscaler.__file__).parent
PAGE = CODE.parent / "ARCHITECTURE.md"


def rows():
    """Folders and entry modules of the page's table, a row each."""
    tree = PAGE.read_text(encoding="utf-8").split("## The tree")[1].split("## Layers")[0]
    above = ""
    for line in tree.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([^`]+)`", cells[0]) if len(cells) == 3 else []
        if not names:
            continue
        folders = [above + name if cells[0].startswith("·") else name for name in names]
        above = above if cells[0].startswith("·") else names[0]
        begin = [part.strip() for part in cells[2].split(";")]
        yield folders, [re.findall(r"`([^`]+)`", part) for part in begin]


def test_every_place_at_which_a_reader_is_told_to_begin_exists():
    found = 0
    for folders, begin in rows():
        groups = begin if len(folders) == len(begin) else [[m for part in begin for m in part]] * len(folders)
        for folder, modules in zip(folders, groups, strict=True):
            assert list(CODE.glob(f"{folder.rstrip('*/')}*")), f"{folder} is not there"
            for module in modules:
                home = CODE if folder.endswith("*") else CODE / folder
                assert (home / f"{module}.py").is_file(), f"{folder} has no module {module}"
                found += 1
    assert found > 40


def test_every_package_has_a_row():
    told = {folder.rstrip("/") for folders, _ in rows() for folder in folders}
    own = {package.path for package in packages() if package.path}
    nested_in_adapters = {"providers/ec2", "providers/libvirt"}
    assert own - told - nested_in_adapters == set()
    assert {name for name in told - own if not name.endswith("*")} == set()


def test_the_index_takes_the_first_paragraph_and_the_folder_comes_before_those_within(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "__init__.py").write_text('"""All of it."""\n')
    (inner / "__init__.py").write_text('"""Within."""\n')
    (inner / "b.py").write_text('"""One thing: it goes on\nhere.\n\nWhy: not told.\n"""\n')
    (inner / "a.py").write_text('"""First."""\n')
    assert [(p.path, p.what, p.modules) for p in packages(tmp_path)] == [
        ("", "All of it.", ()),
        ("inner", "Within.", (("a", "First."), ("b", "One thing: it goes on here."))),
    ]


def test_a_module_that_does_not_say_what_it_is_is_named(tmp_path):
    silent = tmp_path / "silent.py"
    silent.write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"silent\.py: has no docstring"):
        said_first(silent)
