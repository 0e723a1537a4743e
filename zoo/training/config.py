"""What `zoo train` does, as a YAML file says it: the pairing, the data, and the settings beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.common.configuration import Count, checked, read_mapping
from zoo.data.data_config import DataEntry, DataNamed
from zoo.training.settings import TrainSettings

__all__ = ["TrainConfig", "load_train_config"]


class TrainConfig(TrainSettings):
    """A training run; the other keys are `TrainSettings`.

    Attributes:
        encoder: an encoder's id.
        decoder: a decoder's id.
        data: a task's name, a folder, or {source, ...} with the options of `zoo.open_data`; relative to the file's folder.
        output: the folder that keeps the run, relative to where it is started.
        weights: of the encoder, as `zoo.build` takes them.
        levels, aux_levels, gradient_checkpointing: as `zoo.build` takes them.
        encoder_options: keywords for the encoder's factory.
        decoder_options: keywords for the decoder's factory.
        plugins: Python files that register encoders or decoders, relative to the file's folder.
    """

    encoder: str
    decoder: str
    data: DataNamed
    output: str | None = None
    weights: str | None = None
    levels: Count | None = None
    aux_levels: Annotated[int, Field(ge=0)] = 0
    gradient_checkpointing: Literal["encoder", "decoder", "both"] | None = None
    encoder_options: dict[str, Any] = {}
    decoder_options: dict[str, Any] = {}
    plugins: list[str] = []

    def settings(self) -> dict[str, Any]:
        """Return the settings that were given."""
        return self.model_dump(include=self.model_fields_set & TrainSettings.model_fields.keys())


def load_train_config(path: Path, changes: dict[str, Any]) -> TrainConfig:
    """Read a training run's YAML file.

    Args:
        path: of the file.
        changes: keys that replace those of the file.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, a wrong type or an impossible value.
    """
    told = f"{path} is no valid training configuration"
    content = read_mapping(path, "encoder: resnet18") | changes
    config = checked(TrainConfig, content, told, lambda place: DataEntry if place[:1] == ["data"] else TrainConfig)
    base = path.resolve().parent
    found = {"data": config.data.relative_to(base), "plugins": [str(base / entry) for entry in config.plugins]}
    return config.model_copy(update=found)
