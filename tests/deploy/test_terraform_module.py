"""deploy/terraform, checked without Terraform: it parses, its references exist, and the AWS provider accepts its arguments."""

import json
import re
import shutil
import subprocess
from functools import cache

import hcl2
import pytest

from autoscaler.settings import Settings
from tests.architecture.test_documents_are_complete import missing
from tests.deploy.test_install_script import ROOT
from tests.deploy.test_settings_file import INSTALLED
from tests.real import require_real

MODULE = ROOT / "deploy/terraform"
FILES = sorted(MODULE.glob("*.tf"))
SCHEMA = json.loads((ROOT / "tests/deploy/aws_schema.json").read_text())
"""What the provider takes (`aws_schema.py`): by type, arguments with whether they must be given, or those of a block."""
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}
USER_DATA = (MODULE / "user-data.sh.tftpl").read_text()


def plain(name):
    """The parser keeps the quotes of labels and strings."""
    return name.strip('"') if isinstance(name, str) else name


def own(body):
    """A block without what the parser notes in it."""
    return {name: value for name, value in body.items() if not name.startswith("__")}


@cache
def parsed():
    """The files as the parser gives them; nobody changes them."""
    return [hcl2.loads(path.read_text()) for path in FILES]


def blocks(kind):
    """(labels, body) of each block of a kind."""
    found = []
    for file in parsed():
        for each in file.get(kind, []):
            labels = []
            while "__is_block__" not in each:
                ((label, each),) = each.items()  # noqa: PLW2901  from label to label
                labels.append(plain(label))
            found.append((tuple(labels), own(each)))
    return found


def text():
    """All of it without comments."""
    return re.sub(r"^\s*#.*$", "", "\n".join(path.read_text() for path in FILES), flags=re.MULTILINE)


def things():
    """Resources and data sources: type as in the schema, name, body."""
    yield from ((kind, name, body) for (kind, name), body in blocks("resource"))
    yield from ((f"data.{kind}", name, body) for (kind, name), body in blocks("data"))


def names_of(kind):
    return {labels[0] for labels, _ in blocks(kind)}


def test_variables_and_locals_that_are_used_are_those_that_are_defined():
    assert set(re.findall(r"\bvar\.(\w+)", text())) == names_of("variable")
    defined = {name for _, body in blocks("locals") for name in body}
    assert set(re.findall(r"\blocal\.(\w+)", text())) == defined


def test_resources_that_are_named_exist_and_can_tell_what_they_are_asked():
    there = {(kind, name) for kind, name, _ in things()}
    used = re.findall(r"\b((?:data\.)?aws_\w+)\.(\w+)(?:\[0\])?\.(\w+)", text())
    assert len(used) > 15
    for kind, name, attribute in used:
        assert (kind, name) in there, f"{kind}.{name}"
        assert attribute in {*SCHEMA[kind]["readable"], "id"}, f"{kind}.{name}.{attribute}"


def test_what_is_made_only_sometimes_is_named_by_its_place():
    counted = {(kind, name) for kind, name, body in things() if "count" in body}
    many = {(kind, name) for kind, name, body in things() if "for_each" in body}
    for kind, name, then in re.findall(r"\b((?:data\.)?aws_\w+)\.(\w+)(\[0\]\.|\.)", text()):
        assert ((kind, name) in counted) == (then == "[0]."), f"{kind}.{name}{then}"
        assert (kind, name) not in many


HEADS = [
    f"{'data.' if block == 'data' else ''}{kind}.{name}"
    for block, kind, name in re.findall(r'^(resource|data) "(\w+)" "(\w+)"', text(), flags=re.MULTILINE)
]
"""Resources and data sources without parsing, which takes half a second in each process that collects tests."""


def test_all_of_them_are_tried():
    assert sorted(HEADS) == sorted(f"{kind}.{name}" for kind, name, _ in things())


@pytest.mark.parametrize("which", HEADS)
def test_the_provider_takes_what_it_is_given(which):
    (found,) = [(kind, body) for kind, name, body in things() if f"{kind}.{name}" == which]
    kind, body = found
    given_what_it_takes(which, SCHEMA[kind]["arguments"], body)


def given_what_it_takes(which, takes, body):
    given = set(body) - META
    assert given <= set(takes), f"{which}: {SCHEMA['provider']} knows no {given - set(takes)}"
    needed = {name for name, inner in takes.items() if inner is True}
    assert needed <= given, f"{which} lacks {needed - given}"
    for name in given:
        inside = [
            own(each)
            for each in (body[name] if isinstance(body[name], list) else [])
            if isinstance(each, dict) and "__is_block__" in each
        ]
        assert bool(inside) == isinstance(takes[name], dict), f"{which}.{name}: a block or not?"
        for each in inside:
            given_what_it_takes(f"{which}.{name}", takes[name], each)


def test_the_check_knows_wrong_from_right():
    takes = {"name": True, "size": False, "disk": {"encrypted": False}}
    given_what_it_takes("x", takes, {"name": "a", "disk": [{"encrypted": True, "__is_block__": True}]})
    for wrong in (
        {"size": 1},
        {"name": "a", "sizes": 1},
        {"name": "a", "disk": [{"encryption": True, "__is_block__": True}]},
        {"name": "a", "disk": "big"},
        {"name": [{"__is_block__": True}]},
    ):
        with pytest.raises(AssertionError):
            given_what_it_takes("x", takes, wrong)


def test_it_reads_every_iam_policy_and_no_file_that_is_not_there():
    read = set(re.findall(r"iam-policy[\w-]*\.json", text()))
    assert read == {path.name for path in (ROOT / "deploy").glob("iam-*.json")}
    assert '"${path.module}/../${each.value}"' in text()
    for path in re.findall(r'"\$\{path\.module\}/([^"$]+)"', text()):
        assert (MODULE / path).is_file(), path


def test_disk_and_metadata_are_shut_and_nothing_is_admitted_unasked():
    made = {(kind, name): body for kind, name, body in things()}
    vm = made["aws_instance", "this"]
    assert plain(vm["metadata_options"][0]["http_tokens"]) == "required"
    assert vm["root_block_device"][0]["encrypted"] is True
    defaults = {labels[0]: body["default"] for labels, body in blocks("variable") if "default" in body}
    rules = {name: body for (kind, name), body in made.items() if kind.endswith("ingress_rule")}
    assert set(rules) == {"ssh", "metrics"}
    for name, body in rules.items():
        assert body["for_each"] == f"${{var.{name}_cidrs}}"
        assert defaults[f"{name}_cidrs"] == []
        assert body["from_port"] == body["to_port"] == (22 if name == "ssh" else Settings().http_port)


def test_the_queue_is_one_that_the_role_may_read_and_hears_what_the_guide_says():
    assert "arn:aws:sqs:*:*:autoscaler-*" in (ROOT / "deploy/iam-policy.json").read_text()
    (name,) = [body["name"] for kind, _, body in things() if kind == "aws_sqs_queue"]
    assert plain(name) == "${var.name}-hints"
    assert 'regex("^autoscaler(-[a-z0-9-]+)?$", var.name)' in text()
    pattern = re.search(r"--event-pattern \\\n\s*'(.+)'", (ROOT / "deploy/README.md").read_text())[1]
    for key, values in json.loads(pattern).items():
        assert re.search(rf"\b{key}\s*= {re.escape(json.dumps(values))}", text()), key


def test_its_settings_are_the_daemons():
    (settings,) = [body["settings"] for _, body in blocks("locals")]
    named = set(re.findall(r"[{,\n]\s*(\w+)\s*=(?!=)", settings))
    assert named <= set(Settings.model_fields)
    assert {*INSTALLED, "aws_region", "http_host", "aws_hint_queue_url"} == named
    for name, value in INSTALLED.items():
        assert re.search(rf"\b{name}\s*= {re.escape(json.dumps(str(value)))}", text()), name


def test_user_data_is_a_script_whose_blanks_are_filled():
    blanks = set(re.findall(r"\$\{(\w+)\}", USER_DATA))
    (body,) = [body for kind, _, body in things() if kind == "aws_instance"]
    assert blanks == set(re.findall(r"(\w+)\s*= ", body["user_data"]))
    assert "%{" not in USER_DATA
    require_real("shellcheck", shutil.which("shellcheck") is not None)
    script = re.sub(r"\$\{(\w+)\}", "filled", USER_DATA)
    result = subprocess.run(
        ["shellcheck", "-"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_the_example_gives_what_must_be_given_and_nothing_else():
    example = re.search(r"```hcl\n(.+?)```", (MODULE / "README.md").read_text(), re.DOTALL)[1]
    ((_, given),) = hcl2.loads(example)["module"][0].items()
    needed = {labels[0] for labels, body in blocks("variable") if "default" not in body}
    assert needed <= set(own(given)) - {"source"} <= names_of("variable")


def test_each_variable_and_output_says_what_it_is_and_stands_in_the_guide():
    guide = (MODULE / "README.md").read_text()
    for kind in ("variable", "output"):
        for (name,), body in blocks(kind):
            assert plain(body["description"]).endswith("."), name
            assert kind == "output" or body["type"], name
    assert missing(names_of("variable") | names_of("output"), guide) == ""
