"""Write the reference pages that are generated from the code. `make docs` runs this script.

typer's generator writes the page about the command line. The page about the keys of YAML files is generated from the classes
that validate these files.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import zoo
from zoo.benchmark.config import BenchConfig, ExcludeRule, ReferenceEntry, RoundsEntry
from zoo.benchmark.quality import QualityEntry
from zoo.data.data_config import DataEntry
from zoo.pairing.pairing_yaml import PairingFile
from zoo.training.config import TrainConfig
from zoo.training.entries import LossTerm, ObjectEntry

REFERENCE = Path(__file__).parents[1] / "docs/reference"
YAML_INTRODUCTION = """# YAML

zoo reads three kinds of YAML files. Unknown keys are errors. `zoo schema bench`, `zoo schema train` and `zoo schema pairing`
print JSON schemas, with which an editor completes keys and underlines mistakes.
"""
FILES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("A pairing", "`zoo.build(zoo.Pairing.from_yaml(FILE))` builds it.", PairingFile),
    (
        "A training run",
        "`zoo train FILE` runs it. [Train](../guides/train.md) explains the settings. By default, `classes` and `in_channels` "
        "are those of the data.",
        TrainConfig,
    ),
    ("Data", "The value of `data` in a training run, and in the `quality` of a benchmark.", DataEntry),
    ("A term of a loss", "An entry of a list under `loss`.", LossTerm),
    ("A callback or logger", "An entry of `callbacks` or `loggers`.", ObjectEntry),
    ("A benchmark", "`zoo bench FILE` runs it. [Benchmark](../guides/benchmark.md) explains the keys.", BenchConfig),
    ("Rounds", "The value of `rounds` in a benchmark, if it is not a number.", RoundsEntry),
    ("A reference", "An entry of `references` in a benchmark, or its `baseline`.", ReferenceEntry),
    ("A rule of exclusion", "An entry of `exclude` in a benchmark.", ExcludeRule),
    ("Quality", "The value of `quality` in a benchmark.", QualityEntry),
)
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "mapping"}


def main() -> None:
    """Write the pages about the command line and about the keys of YAML files."""
    (REFERENCE / "cli.md").write_text(cli_page(), encoding="utf-8")
    (REFERENCE / "yaml.md").write_text(yaml_page(), encoding="utf-8")


def cli_page() -> str:
    """Return the page that describes all commands with their arguments and options."""
    command = [sys.executable, "-m", "typer", "zoo.cli", "utils", "docs", "--name", "zoo", "--title", "Command line"]
    page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # In lists of commands, typer cuts off each summary after 45 characters. Insert the first sentence of the command's help.
    sentences = dict(re.findall(r"^##+ `(?:\S+ )+(\S+)`\n\n(.*?[.])\s", page, re.M | re.S))
    return re.sub(r"^\* `(\S+)`: .*\.\.\.$", lambda entry: f"* `{entry[1]}`: {sentences[entry[1]]}", page, flags=re.M)


def yaml_page() -> str:
    """Return the page that describes all keys of the YAML files."""
    parts = [YAML_INTRODUCTION]
    for title, text, model in FILES:
        schema = model.model_json_schema()
        meanings = meanings_of(model)
        rows = [f"## {title}", "", text, "", "| key | type | default | |", "| --- | --- | --- | --- |"]
        for key, facts in schema["properties"].items():
            default = f"`{json.dumps(facts.get('default'))}`" if key not in schema.get("required", ()) else "required"
            cells = (f"`{key}`", type_of(facts, schema), default, add_links(meanings.get(key, "")))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def add_links(text: str) -> str:
    """Return a description in which each name of a class that has a section is replaced by a link to that section."""
    for title, _, model in FILES:
        text = text.replace(f"`{model.__name__}`", f"[{title}](#{title.lower().replace(' ', '-')})")
    return text


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each key, from the docstrings of the class, of its base classes and of `zoo.build`."""
    meanings: dict[str, str] = {}
    for documented in (zoo.build, *reversed(model.__mro__)):  # `zoo.build` explains the options of a pairing
        section = re.search(r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", inspect.cleandoc(documented.__doc__ or ""), re.M | re.S)
        entries = re.findall(r"^    ([\w, ]+): (.*?)(?=^    \S|\Z)", section[1] if section else "", re.M | re.S)
        for names, text in entries:
            meanings |= dict.fromkeys(re.split(r", +", names), " ".join(text.split()))
    return meanings


def type_of(facts: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return the type of a key as text, such as "list of text"."""
    if "$ref" in facts:
        return type_of(schema["$defs"][facts["$ref"].rpartition("/")[2]], schema)
    if "enum" in facts or "const" in facts:
        return " or ".join(f"`{value}`" for value in facts.get("enum", [facts.get("const")]))
    if "anyOf" in facts:
        return " or ".join(dict.fromkeys(type_of(each, schema) for each in facts["anyOf"] if each.get("type") != "null"))
    if facts.get("type") == "array":
        return f"list of {type_of(facts.get('items') or {}, schema)}" if "items" in facts else "list"
    return TYPES.get(facts.get("type", ""), "any value")


if __name__ == "__main__":
    main()
