"""The JSON Schema of policies, as an editor uses it."""

import importlib.util
import json
from pathlib import Path

from typer.testing import CliRunner

import autoscaler
from autoscaler.cli.main import app
from autoscaler.config.loading import load_policies
from autoscaler.config.rendering import effective_data
from tests.real import require_real

ROOT = Path(autoscaler.__file__).parents[1]


def validator():
    require_real("jsonschema", importlib.util.find_spec("jsonschema") is not None)
    import jsonschema

    schema = json.loads(CliRunner().invoke(app, ["policy", "schema"]).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def example():
    loaded = load_policies(ROOT / "policies", 10.0)
    assert loaded.policies
    return effective_data(loaded.policies[0])


def test_the_example_policies_are_valid_for_an_editor():
    assert [error.message for error in validator().iter_errors(example())] == []


def test_an_editor_marks_a_typo_and_a_number_without_a_unit():
    policy = example()
    policy["gards"] = {}
    policy["guards"]["stabilisation"] = "five minutes"
    said = [error.message for error in validator().iter_errors(policy)]
    assert len(said) == 2
    assert any("gards" in message for message in said)
    assert any("five minutes" in message for message in said)


def test_every_field_has_a_sentence_to_hover_over():
    schema = validator().schema
    for section in (schema, *schema["$defs"].values()):
        for name, field in section["properties"].items():
            described = schema["$defs"][field["$ref"].rpartition("/")[2]] if set(field) == {"$ref"} else field
            assert len(described.get("description", "")) > 8, name
