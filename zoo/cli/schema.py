"""The command `zoo schema`: describe the YAML files to an editor."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from zoo.cli.answers import answer
from zoo.cli.application import app

__all__: list[str] = []


@app.command()
def schema(
    kind: Annotated[
        Literal["pairing", "bench", "train"],
        typer.Argument(help="Which schema: pairing (for `zoo.Pairing.from_yaml`), bench or train."),
    ],
) -> None:
    """Print the JSON schema of a kind of YAML file. An editor uses it to complete keys and to underline mistakes.

    For the YAML language server, begin the YAML file with this line: # yaml-language-server: $schema=pairing.schema.json
    """
    from zoo.benchmark.config import BenchConfig
    from zoo.common.configuration import Strict
    from zoo.pairing.pairing_yaml import PairingFile
    from zoo.training.config import TrainConfig

    models: dict[str, type[Strict]] = {"pairing": PairingFile, "bench": BenchConfig, "train": TrainConfig}
    json_schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[kind].model_json_schema()}
    answer(json.dumps(json_schema, indent=2))
