"""What `config.yaml` and checkpoints store about a model besides its weights. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from zoo.common.configuration import Strict, checked, written
from zoo.common.options import plain
from zoo.data.data_config import ColorEntry, RangeEntry
from zoo.pairing.pairing import Pairing
from zoo.pairing.pairing_yaml import PairingFile
from zoo.pairing.plan import Plan
from zoo.registry.library_versions import NOT_INSTALLED, library_versions
from zoo.registry.licenses import Licenses
from zoo.registry.registry import default_registry
from zoo.registry.specs import Preprocessing

if TYPE_CHECKING:
    from zoo.model.model import SegmentationModel

__all__ = ["ModelFacts", "SavedModel", "find_versions", "read_facts", "structure_of"]


class PluginVersion(Strict):
    """The distribution from which an encoder or a decoder comes, and its version."""

    distribution: str
    version: str


class PreprocessingEntry(Strict):
    """A `Preprocessing` as plain data."""

    mean: list[float]
    std: list[float]
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)]

    def preprocessing(self) -> Preprocessing:
        """Return the `Preprocessing`."""
        low, high = self.value_range
        return Preprocessing(mean=tuple(self.mean), std=tuple(self.std), value_range=(low, high))

    @model_validator(mode="after")
    def _is_valid(self) -> PreprocessingEntry:
        self.preprocessing()
        return self


class ModelFacts(Strict):
    """What is stored about a model besides its weights.

    Attributes:
        pairing: the ids of the encoder and the decoder, and the options, as for `zoo.Pairing`.
        plan: the result of the negotiation, that is, how the encoder and the decoder are connected. The model can be loaded
            only if the installed versions result in the same plan.
        plugins: a mapping from the ids of the encoder and the decoder to the distributions that they come from.
        classes: the names of the classes; empty if the classes have no names.
        colors: the color of each class in masks; empty if the classes have no colors.
        one_class_per_pixel: whether each pixel has exactly one class.
        preprocessing: the normalization of images.
        value_range: a pair (low, high) for each channel, as in `SegmentationModel`.
        licenses: the licenses of the code and the weights.
    """

    pairing: PairingFile
    plan: dict[str, Any]
    plugins: dict[str, PluginVersion]
    classes: list[str] = []
    colors: list[ColorEntry] = []
    one_class_per_pixel: bool = True
    preprocessing: PreprocessingEntry
    value_range: list[RangeEntry] | None = None
    licenses: dict[Literal["encoder", "decoder", "weights"], str]

    @classmethod
    def of(cls, model: SegmentationModel, class_names: Sequence[str], **further: Any) -> Self:
        """Collect the attributes of this class from a model.

        Args:
            model: the model.
            class_names: the names of the classes, which are stored instead of those that the model has.
            further: the values of the fields that a subclass adds.
        """
        facts = {
            "pairing": model.pairing.as_dict(),
            "plan": structure_of(model.plan),
            "plugins": _find_plugins(model.pairing),
            "classes": list(class_names),
            "colors": list(model.colors),
            "one_class_per_pixel": model.has_one_class_per_pixel,
            "preprocessing": plain(asdict(model.preprocessing)),
            "value_range": model.value_range and [list(pair) for pair in model.value_range],
            "licenses": asdict(model.licenses),
        }
        return cls.model_validate(facts | further)

    def make_pairing(self) -> Pairing:
        """Return the pairing of the model."""
        return Pairing(**self.pairing.model_dump())

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        pairing = self.make_pairing()
        if (count := len(self.preprocessing.mean)) != pairing.in_channels:
            raise ValueError(f"preprocessing has {count} channels, but images have {pairing.in_channels}")
        if self.value_range is not None and (count := len(self.value_range)) != pairing.in_channels:
            raise ValueError(f"value_range has {count} channels, but images have {pairing.in_channels}")
        for name, values in (("classes", self.classes), ("colors", self.colors)):
            if values and len(values) != pairing.classes:
                raise ValueError(f"{len(values)} {name} for a model of {pairing.classes} classes")
        return self

    def apply_to(self, model: SegmentationModel) -> None:
        """Set the attributes of a model to these facts."""
        model.pairing = self.make_pairing()
        model.preprocessing = self.preprocessing.preprocessing()
        model.value_range = None if self.value_range is None else tuple((low, high) for low, high in self.value_range)
        model.licenses = Licenses(**self.licenses)
        model.class_names, model.colors = tuple(self.classes), tuple(self.colors)
        model.has_one_class_per_pixel = self.one_class_per_pixel


class SavedModel(ModelFacts):
    """The content of `config.yaml`.

    Attributes:
        format: the version of the file format.
        weights: the name of the weights file, in the same folder.
        sha256: the SHA-256 checksum of the weights file.
        versions: the versions of the libraries with which the model was saved.
        metrics: measured results of the model, as plain data.
    """

    format: Literal[1]
    weights: str = Field(pattern=r"^[\w-]+\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    versions: dict[str, str]
    metrics: dict[str, Any] = {}

    def to_yaml(self) -> str:
        """Return the file's text."""
        return written(self.model_dump())


_Facts = TypeVar("_Facts", bound=ModelFacts)


def read_facts(model: type[_Facts], content: Mapping[Any, Any], problem: str) -> _Facts:
    """Return the `ModelFacts` that a file's content states.

    Raises:
        ConfigError: the content is not valid. The message begins with `problem`.
    """
    parts: dict[str | int, type[Strict]] = {"pairing": PairingFile, "preprocessing": PreprocessingEntry}
    return checked(model, dict(content), problem, lambda location: parts.get(location[0], model) if location else model)


def structure_of(plan: Plan) -> dict[str, Any]:
    """Return, as plain data, the part of a plan that determines the model's layers, without the reasons for the plan."""
    facts = plain(plan.as_dict())
    routes = [{key: route[key] for key in ("source", "output", "adapters")} for route in facts["routes"]]
    return {"maps": facts["maps"], "routes": routes, "sizes": facts["sizes"], "encoder_options": facts["encoder_options"]}


def _find_plugins(pairing: Pairing) -> dict[str, PluginVersion]:
    """Return a mapping from the ids of the encoder and the decoder to their distributions, if they come from distributions."""
    registry = default_registry()
    entries = (registry.encoder(pairing.encoder), registry.decoder(pairing.decoder))
    return {
        entry.full_id: PluginVersion(distribution=entry.distribution, version=entry.version)
        for entry in entries
        if entry.distribution
    }


def find_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that a model depends on."""
    return {name: version for name, version in library_versions().items() if version != NOT_INSTALLED}
