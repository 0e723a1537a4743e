"""The one fact that build, bench, save and configurations share: which encoder, which decoder, with what options."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.common.options import Options, plain
from zoo.errors import ConfigError, OptionError
from zoo.registry.registry import MODULE

__all__ = ["ADAPTER_POLICIES", "CHECKPOINTED", "SIZE_POLICIES", "Pairing"]

ADAPTER_POLICIES = ("auto", "none")
SIZE_POLICIES = ("auto", "pad", "resize", "error")
MOST = 2**16
"""How many classes, and channels of an image, there may be: a mask's and an image's numbers have 16 bits."""
CHECKPOINTED = (None, "encoder", "decoder", "both")


@dataclass(frozen=True, slots=True)
class Pairing:
    """An encoder id, a decoder id and their options.

    Attributes:
        encoder: an encoder's id, bare (`resnet18`) or full (`timm:resnet18`).
        decoder: a decoder's id.
        classes: the number of logits a pixel gets.
        in_channels: the number of channels the image has.
        weights: None for random ones, a name the encoder knows, or a file's path.
        levels: how many of the encoder's strides to use, counted from the finest (smp's `encoder_depth`); of an encoder of a
            single stride, how many maps, for a decoder that takes several of one stride. None for all.
        image_size: (H, W) that the model will see, for encoders made for one size; None where it may vary.
        adapters: "auto" inserts what the negotiation finds, "none" refuses to insert anything.
        size_policy: what happens to an image whose size the encoder cannot take as it is: "pad" (right and bottom, with
            zeros, and crop the logits), "resize" (the image, and the logits back), "error"; "auto" pads where it can,
            and resizes what is larger than the one size that an encoder takes.
        aux_levels: how many of the decoder's coarser maps get a head of their own, the finest of these first (deep
            supervision); in train mode the model then returns a tuple of logits.
        gradient_checkpointing: "encoder", "decoder" or "both": whose activations are computed again for the gradient, and not
            kept.
        encoder_options: keywords for the encoder's factory.
        decoder_options: keywords for the decoder's factory.
    """

    encoder: str
    decoder: str
    _: KW_ONLY
    classes: int = 1
    in_channels: int = 3
    weights: str | None = None
    levels: int | None = None
    image_size: tuple[int, int] | None = None
    adapters: str = "auto"
    size_policy: str = "auto"
    aux_levels: int = 0
    gradient_checkpointing: str | None = None
    encoder_options: Mapping[str, Any] = field(default_factory=Options)
    decoder_options: Mapping[str, Any] = field(default_factory=Options)

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(f"{name} is asked for by its id, a string such as 'resnet18'; found {getattr(self, name)!r}.")
        for name in ("classes", "in_channels"):
            _check_count(name, getattr(self, name))
            if getattr(self, name) > MOST:
                raise OptionError(
                    f"{name} must be at most {MOST:,}, what a mask of 16 bits can tell apart; found {getattr(self, name):,}."
                )
        if self.levels is not None:
            _check_count("levels", self.levels)
        if self.weights is not None and not isinstance(self.weights, str):
            raise OptionError(f"weights is None, a name or a file's path as a string; found {self.weights!r}.")
        _check_choice("adapters", self.adapters, ADAPTER_POLICIES)
        _check_choice("size_policy", self.size_policy, SIZE_POLICIES)
        _check_choice("gradient_checkpointing", self.gradient_checkpointing, CHECKPOINTED)
        if not isinstance(self.aux_levels, int) or isinstance(self.aux_levels, bool) or self.aux_levels < 0:
            raise OptionError(f"aux_levels is a number of the decoder's coarser maps, 0 for none; found {self.aux_levels!r}.")
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _size(self.image_size))
        for name in ("encoder_options", "decoder_options"):
            options = getattr(self, name)
            if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
                raise OptionError(f"{name} is a mapping of names to values, such as {{'norm': 'group'}}; found {options!r}.")
            object.__setattr__(self, name, Options(options))

    @property
    def encoder_weights(self) -> str:
        """Which weights the encoder has once it is built, in words."""
        if self.encoder.startswith(f"{MODULE}:"):
            return "the module's own"
        return self.weights or "random"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as YAML and JSON hold it."""
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_yaml(cls, path: str | PathLike[str]) -> Pairing:
        """Return the pairing that a YAML file says: `encoder`, `decoder`, and options as for `zoo.build`.

        Raises:
            ConfigError: no such file, no YAML, an unknown key, or a wrong type; every mistake is named.

        Example:
            >>> model = zoo.build(zoo.Pairing.from_yaml("unet.yaml"))
        """
        from zoo.common.configuration import checked, read_mapping
        from zoo.pairing.pairing_yaml import PairingFile

        place = Path(path)
        found = checked(PairingFile, read_mapping(place, "encoder: resnet18"), f"{place} is no valid pairing")
        try:
            return cls(**found.model_dump())
        except OptionError as cause:
            raise ConfigError(f"{place} is no valid pairing:\n  {cause}") from cause

    def to_yaml(self) -> str:
        """Return the YAML that `from_yaml` reads: ids, and the options that are not at their defaults."""
        from zoo.common.configuration import written

        return written({"encoder": self.encoder, "decoder": self.decoder, **self._chosen()})

    def code(self) -> str:
        """Return the line of Python that builds it."""
        options = "".join(f", {name}={value!r}" for name, value in self._chosen().items())
        return f"zoo.build({self.encoder!r}, {self.decoder!r}{options})"

    def _chosen(self) -> dict[str, Any]:
        """Return the options that are not at their defaults, as plain data."""
        return {
            entry.name: plain(getattr(self, entry.name))
            for entry in fields(self)
            if entry.name not in ("encoder", "decoder") and getattr(self, entry.name) != _DEFAULTS[entry.name]
        }

    def __str__(self) -> str:
        return self.told()

    def told(self, *, without: Collection[str] = ()) -> str:
        """Return ids and options as one line, without the options that go without saying."""
        chosen = self._chosen().items()
        listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in chosen if name not in without)
        return f"{self.encoder} x {self.decoder}" + (f" ({listed})" if listed else "")


_DEFAULTS = {
    entry.name: entry.default if entry.default_factory is not Options else Options()
    for entry in fields(Pairing)
    if entry.name not in ("encoder", "decoder")
}


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"{name} must be a whole number of at least 1; found {value!r}.")


def _check_choice(name: str, value: object, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"{name} is one of {', '.join(map(repr, allowed))}; found {value!r}.")


def _size(value: Any) -> tuple[int, int]:
    try:
        height, width = value
    except (TypeError, ValueError):
        raise OptionError(f"image_size is a pair (height, width), such as (256, 320); found {value!r}.") from None
    _check_count("image_size's height", height)
    _check_count("image_size's width", width)
    return int(height), int(width)
