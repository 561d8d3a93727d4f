"""Renders policies as text: the effective policy with every field, and the JSON Schema for editors.

Rules of this file: loading what `effective_yaml` returns gives the same policy.
"""

from __future__ import annotations

from io import StringIO
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from autoscaler.config.policy import Policy
from autoscaler.config.section import Off, Section


def effective_data(policy: Policy) -> dict[str, Any]:
    """Return the policy as plain data in the form of YAML, with every field and with units."""
    return _written(policy)


def effective_yaml(policy: Policy) -> str:
    """Return the policy as YAML, with every field, including defaults."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    yaml.representer.add_representer(type(None), _null)
    text = StringIO()
    yaml.dump(effective_data(policy), text)
    return text.getvalue()


def _null(representer: SafeRepresenter, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _written(section: Section) -> dict[str, Any]:
    plain = section.model_dump(mode="json", by_alias=True)
    data: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        key, value = info.alias or name, getattr(section, name)
        if isinstance(value, Section):
            data[key] = _written(value)
        elif value is None and Off in info.metadata:
            data[key] = "off"
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            data[key] = [_written(item) for item in value]
        else:
            data[key] = plain[key]
    return data


class _Schema(GenerateJsonSchema):
    """Generates JSON Schema in which optional sections may be `off` and defaults are written as in YAML."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        default = schema.get("default")
        if isinstance(default, Section):
            made.pop("default", None)  # each of its fields has its own default
            return made
        written = schema["schema"].get("serialization", {}).get("function")
        if written is not None and default is not None:
            made["default"] = written(default)
        return made

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        return {"anyOf": [inner, {"const": "off"} if "$ref" in inner else {"type": "null"}]}


def policy_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a policy file, for editors that complete and check YAML."""
    schema = Policy.model_json_schema(by_alias=True, schema_generator=_Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Autoscaler policy"}
