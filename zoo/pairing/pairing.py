"""A pairing: an encoder, a decoder and their options, for building, benchmarks, saved models and configurations."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.common.options import plain
from zoo.pairing.pairing_fields import OPTION_NAMES, PairingFields
from zoo.registry.registry import MODULE

__all__ = ["Pairing"]


@dataclass(frozen=True, slots=True)
class Pairing(PairingFields):
    """An encoder id, a decoder id and their options.

    Options are checked, and stored as plain immutable data: paths become text, and lists become tuples.

    Attributes:
        encoder: an encoder's id, bare (`resnet18`) or full (`timm:resnet18`).
        decoder: a decoder's id.

    `zoo.build` explains the options.

    Raises:
        OptionError: the value of an option is not valid.
    """

    @property
    def encoder_weights(self) -> str:
        """The weights of the built encoder, as text: their name or path, "random" or "the module's own"."""
        if self.encoder.startswith(f"{MODULE}:"):
            return "the module's own"
        return self.weights or "random"

    def as_dict(self) -> dict[str, Any]:
        """Return the pairing as a dict of plain data, for YAML and JSON."""
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_yaml(cls, path: str | PathLike[str]) -> Pairing:
        """Read a pairing from a YAML file. The keys of the file are `encoder`, `decoder` and the options of `zoo.build`.

        Raises:
            ConfigError: the file does not exist, is not YAML, or has an unknown key or an invalid value. The message
                names every mistake.

        Example:
            >>> model = zoo.build(zoo.Pairing.from_yaml("unet.yaml"))
        """
        from zoo.common.configuration import checked, read_mapping
        from zoo.pairing.pairing_yaml import PairingFile

        content = read_mapping(Path(path), "encoder: resnet18")
        return cls(**checked(PairingFile, content, f"{path} is not a valid pairing").model_dump())

    def to_yaml(self) -> str:
        """Return the YAML that `from_yaml` reads: the ids, and the options that differ from their defaults."""
        from zoo.common.configuration import written

        return written({"encoder": self.encoder, "decoder": self.decoder, **self._changed_options()})

    def code(self) -> str:
        """Return a line of Python that builds the model."""
        options = "".join(f", {name}={value!r}" for name, value in self._changed_options().items())
        return f"zoo.build({self.encoder!r}, {self.decoder!r}{options})"

    def _changed_options(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as plain data."""
        values = {entry.name: (getattr(self, entry.name), entry.default) for entry in fields(self)}
        return {name: plain(values[name][0]) for name in OPTION_NAMES if values[name][0] != values[name][1]}

    def __str__(self) -> str:
        return self.describe()

    def describe(self, *, without: Collection[str] = ()) -> str:
        """Return the ids and the options on one line.

        Options that have their default value, and options whose names are in `without`, are left out.
        """
        options = self._changed_options().items()
        listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in options if name not in without)
        return f"{self.encoder} x {self.decoder}" + (f" ({listed})" if listed else "")
