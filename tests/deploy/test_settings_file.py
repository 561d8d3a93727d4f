"""deploy/autoscaler.toml: it loads, and states the default of every setting."""

import os
import re
import tomllib
from pathlib import Path

import pytest

import autoscaler
from autoscaler.cli.reference_fields import INSTALLED
from autoscaler.settings import CONFIG_VARIABLE, Settings, load_settings

FILE = Path(autoscaler.__file__).parents[1] / "deploy" / "autoscaler.toml"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith("AUTOSCALER_")]:
        monkeypatch.delenv(name)


def lines():
    return FILE.read_text(encoding="utf-8").splitlines()


def commented():
    """Names and texts of the values that are commented out."""
    found = (re.fullmatch(r"# ([a-z_]+) = (.+?)(    # not set)?", line) for line in lines())
    return {match[1]: (tomllib.loads(f"x = {match[2]}")["x"], bool(match[3])) for match in found if match}


def test_it_loads_and_differs_from_the_defaults_where_an_installation_does(monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, str(FILE))
    loaded, defaults = load_settings(), Settings.model_construct()
    changed = {
        name: getattr(loaded, name)
        for name in Settings.model_fields
        if getattr(loaded, name) != getattr(defaults, name)
    }
    assert changed == INSTALLED


def test_it_names_each_setting_once():
    active = tomllib.loads(FILE.read_text(encoding="utf-8"))
    assert sorted([*active, *commented()]) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - set(INSTALLED)))
def test_what_is_commented_out_is_the_default(name):
    value, not_set = commented()[name]
    default = Settings.model_fields[name].default
    if default is None:
        assert (value, not_set) == ("", True)
    else:
        written = (
            str(default)
            if isinstance(default, Path)
            else list(default)
            if isinstance(default, tuple)
            else default
        )
        assert (value, not_set) == (written, False)


def test_all_of_it_may_be_uncommented(monkeypatch, tmp_path):
    """Lines of what is not set are empty, which is as good as nothing."""
    text = re.sub(r"^# ([a-z_]+ = .+)$", r"\1", "\n".join(lines()), flags=re.MULTILINE)
    assert set(tomllib.loads(text)) == set(Settings.model_fields)
    (tmp_path / "all.toml").write_text(text)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "all.toml"))
    loaded = load_settings()
    for name, field in Settings.model_fields.items():
        if name not in INSTALLED:
            assert getattr(loaded, name) == field.default, name


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_each_has_its_sentence_above(name):
    at = next(i for i, line in enumerate(lines()) if re.match(rf"(# )?{name} = ", line))
    above = "\n".join(lines()[max(at - 2, 0) : at])
    assert Settings.model_fields[name].description in above
