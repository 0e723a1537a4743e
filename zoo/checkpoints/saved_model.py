"""What a saved model's `config.yaml` says: everything that its weights do not. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import Field

from zoo.common.configuration import Strict, written
from zoo.common.options import plain
from zoo.data.data_config import ColourEntry
from zoo.pairing.pairing import Pairing
from zoo.pairing.plan import Plan
from zoo.registry.licenses import Licences
from zoo.registry.registry import default_registry
from zoo.registry.specs import Preprocessing

__all__ = ["FORMAT", "LIBRARIES", "PluginVersion", "SavedModel", "plugins_of", "structure_of"]

FORMAT: Literal[1] = 1
LIBRARIES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "segmentation-zoo")


class PluginVersion(Strict):
    """The distribution that an encoder or a decoder came from."""

    distribution: str
    version: str


class SavedModel(Strict):
    """A saved model's facts.

    Attributes:
        format: of this file.
        weights: the name of the file of weights, in the same folder.
        sha256: of that file.
        pairing: ids and options, as `zoo.Pairing` takes them.
        plan: what the negotiation came to; a later version must come to the same.
        plugins: by id, where encoder and decoder came from.
        versions: of the libraries that were installed.
        classes: their names, if they have some.
        colours: one a class, to draw masks with.
        one_class_per_pixel: whether the classes exclude each other.
        preprocessing: what an image must be put through.
        licences: of code and weights.
        metrics: whatever is known of how good it is.
    """

    format: Literal[1]
    weights: str = Field(pattern=r"^[\w-]+\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    pairing: dict[str, Any]
    plan: dict[str, Any]
    plugins: dict[str, PluginVersion]
    versions: dict[str, str]
    classes: list[str] = []
    colours: list[ColourEntry] = []
    one_class_per_pixel: bool = True
    preprocessing: dict[str, Any]
    licences: dict[str, str]
    metrics: dict[str, Any] = {}

    @classmethod
    def of(
        cls,
        pairing: Pairing,
        plan: Plan,
        preprocessing: Preprocessing,
        licences: Licences,
        *,
        weights: str,
        sha256: str,
        classes: tuple[str, ...],
        colours: tuple[tuple[int, int, int], ...],
        one_class_per_pixel: bool,
        metrics: Mapping[str, Any],
    ) -> SavedModel:
        """Return the facts of a model."""
        return cls(
            format=FORMAT,
            weights=weights,
            sha256=sha256,
            pairing=pairing.as_dict(),
            plan=structure_of(plan),
            plugins=plugins_of(pairing),
            versions={name: found for name in LIBRARIES if (found := _version(name))},
            classes=list(classes),
            colours=list(colours),
            one_class_per_pixel=one_class_per_pixel,
            preprocessing=plain(asdict(preprocessing)),
            licences=asdict(licences),
            metrics=dict(metrics),
        )

    def to_yaml(self) -> str:
        """Return the file's text."""
        return written(self.model_dump())


def structure_of(plan: Plan) -> dict[str, Any]:
    """Return what of a plan the model's layers follow from, without its reasons, as plain data."""
    facts = plain(plan.as_dict())
    routes = [{key: route[key] for key in ("source", "output", "adapters")} for route in facts["routes"]]
    return {"maps": facts["maps"], "routes": routes, "sizes": facts["sizes"], "encoder_options": facts["encoder_options"]}


def plugins_of(pairing: Pairing) -> dict[str, PluginVersion]:
    """Return which distribution each side of a pairing comes from, by its id; of a script's own none."""
    registry = default_registry()
    entries = (registry.encoder(pairing.encoder), registry.decoder(pairing.decoder))
    return {
        entry.full_id: PluginVersion(distribution=entry.distribution, version=entry.version)
        for entry in entries
        if entry.distribution
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
