"""Every example in the guide and the README is a policy, or a part that makes one of the simplest policy there is;
and each is written out as it was read."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from autoscaler.config.loading import load_policies, load_policy
from autoscaler.config.rendering import effective_yaml

ROOT = Path(__file__).parents[2]
BASE = {
    "fleet": "web",
    "signal": {"kind": "throughput", "source": "push"},
    "vm": {"capacity": "100/s"},
    "bounds": {"minimum": 1, "maximum": 60},
    "reactive": {},
}


def blocks():
    for name in ("README.md", "policies/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL), 1):
            yield pytest.param(block, id=f"{name}-{number}")


def merged(base, over):
    both = {**base, **over}
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            both[key] = merged(base[key], value)
    return both


def shared_limits_load(written, folder):
    """What fleets share stands in the defaults, and needs the fleets that it names."""
    for fleet in ("web", "batch-eu"):
        with (folder / f"{fleet}.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump({**BASE, "fleet": fleet, "prices": {"in_service": "0.1/h"}}, file)
    with (folder / "defaults.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(written, file)
    loaded = load_policies(folder)
    assert [str(each) for each in (*loaded.errors, *loaded.warnings)] == []
    assert all(policy.group is not None for policy in loaded.policies)


@pytest.mark.parametrize("block", list(blocks()))
def test_it_loads_without_an_error(block, tmp_path):
    written = YAML(typ="safe").load(block)
    if "shared" in written:
        shared_limits_load(written, tmp_path)
        return
    base = BASE if "objective" not in written else {k: v for k, v in BASE.items() if k != "reactive"}
    if "source" in written.get("signal", {}):
        base = {**base, "signal": {}}
    for name in ("token", "ca.pem", "client.pem", "client.key"):
        (tmp_path / name).write_text("-", encoding="utf-8")
    path = tmp_path / "web.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(merged(base, written), file)
    loaded = load_policy(path)
    assert [str(each) for each in loaded.errors] == []
    assert len(loaded.policies) == 1
    path.write_text(effective_yaml(loaded.policies[0]), encoding="utf-8")
    assert load_policy(path).policies == loaded.policies
