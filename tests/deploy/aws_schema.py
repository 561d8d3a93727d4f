"""Writes `aws_schema.json`: the arguments that the AWS provider accepts for the resources in deploy/terraform.

Usage: `python tests/deploy/aws_schema.py WHEEL`, with the wheel of `cdktf-cdktf-provider-aws`. It is generated from the
provider's schema: the arguments of its constructors are those of resources and blocks, its properties are what can be read.
"""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
MODULE = HERE.parents[1] / "deploy/terraform"
META = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}


def named():
    """Types of resources as in `resource "TYPE"`, those of data sources as `data.TYPE`."""
    text = "\n".join(path.read_text() for path in sorted(MODULE.glob("*.tf")))
    found = re.findall(r'^(resource|data) "(\w+)"', text, re.MULTILINE)
    return sorted({f"data.{name}" if kind == "data" else name for kind, name in found})


def constructor(of):
    (found,) = (each for each in of.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
    return found.args


def arguments(classes, of):
    """Arguments with whether each is required; for a block, the arguments within."""
    found = {}
    given = constructor(of)
    for name, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        if name.arg not in META:
            block = re.search(rf"'?\b({of.name.removesuffix('Config')}\w+)\b'?", ast.unparse(name.annotation))
            inner = block and classes.get(block[1])
            found[name.arg] = arguments(classes, inner) if inner else default is None
    return found


def schema(source):
    classes = {each.name: each for each in ast.parse(source).body if isinstance(each, ast.ClassDef)}
    main = next(iter(classes.values()))
    readable = sorted(
        each.name
        for each in main.body
        if isinstance(each, ast.FunctionDef)
        and "builtins.property" in map(ast.unparse, each.decorator_list)
        and not each.name.endswith("_input")
    )
    return {"arguments": arguments(classes, main), "readable": readable}


def main(wheel):
    with zipfile.ZipFile(wheel) as archive:
        package = "cdktf_cdktf_provider_aws"
        (about,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        version = re.search(r"hashicorp/aws provider version ([\d.]+)", archive.read(about).decode())[1]
        found = {}
        for name in named():
            folder = name.replace("data.aws_", "data_aws_").removeprefix("aws_")
            found[name] = schema(archive.read(f"{package}/{folder}/__init__.py").decode())
    lines = [f"{json.dumps(name)}: {json.dumps(each, sort_keys=True)}" for name, each in found.items()]
    lines.insert(0, f'"provider": "hashicorp/aws {version}"')
    (HERE / "aws_schema.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main(sys.argv[1])
