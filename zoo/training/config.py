"""The configuration of a training run, for `zoo.train` and YAML files: the pairing, the settings and the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.common.configuration import checked, read_mapping
from zoo.data.data_config import DataEntry, DataNamed
from zoo.data.segmentation_data import SegmentationData
from zoo.pairing.pairing import Pairing
from zoo.pairing.pairing_fields import OPTION_NAMES
from zoo.pairing.pairing_yaml import with_pairing_keys
from zoo.training.entries import entry_at
from zoo.training.settings import TrainSettings

__all__ = ["TrainConfig", "TrainOptions", "load_train_config"]


@with_pairing_keys()
class TrainOptions(TrainSettings):
    """The options of `zoo.train`: the options of `zoo.build`, and `TrainSettings`."""

    def pairing(self, data: SegmentationData) -> Pairing:
        """Return the pairing. By default, its numbers of classes and channels are those of the data."""
        options = self.model_dump(include=self.model_fields_set & {"encoder", "decoder", *OPTION_NAMES})
        return Pairing(**{"classes": len(data.classes), "in_channels": data.in_channels} | options)

    def settings(self) -> TrainSettings:
        """Return the settings without the options of the pairing."""
        return TrainSettings(**self.model_dump(include=set(TrainSettings.model_fields)))


class TrainConfig(TrainOptions):
    """The content of the YAML file of a training run. The file may also have the options of `zoo.build` and `TrainSettings`.

    Attributes:
        data: a task's name, a folder, or {source, ...} with the options of `zoo.open_data`. Paths are relative to the folder of
            the YAML file.
        output: the folder of the run, relative to the folder in which the command is started.
        plugins: Python files that register encoders or decoders, relative to the folder of the YAML file.
    """

    data: DataNamed
    output: str | None = None
    plugins: list[str] = []

    def options(self) -> dict[str, Any]:
        """Return the options of `zoo.train` that the file sets."""
        return self.model_dump(include=self.model_fields_set & TrainOptions.model_fields.keys())


def load_train_config(path: Path, changes: dict[str, Any]) -> TrainConfig:
    """Read a training run's YAML file.

    Args:
        path: the path of the file.
        changes: a mapping from keys to values that replace those of the file.

    Raises:
        ConfigError: the file does not exist or is not YAML, a key is unknown, or a value is invalid.
    """
    content = read_mapping(path, "encoder: resnet18") | changes
    config = checked(
        TrainConfig,
        content,
        f"{path} is not a valid training configuration",
        lambda location: DataEntry if location[:1] == ["data"] else entry_at(location, TrainConfig),
    )
    base = path.resolve().parent
    absolute = {"data": config.data.relative_to(base), "plugins": [str(base / plugin) for plugin in config.plugins]}
    return config.relative_to(base).model_copy(update=absolute)
