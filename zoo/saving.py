"""A model as a folder: weights, what they are weights of, and a card that says so; written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from zoo.configuration import checked, read_mapping
from zoo.errors import ConfigError, OptionError
from zoo.model import SegmentationModel
from zoo.model_card import CARD, card_of
from zoo.planning import MODULE
from zoo.saved import CONFIG, SavedModel
from zoo.whole_files import replace_file

__all__ = ["save_model"]

WEIGHTS = "model.safetensors"


def save_model(
    model: SegmentationModel,
    folder: str | PathLike[str],
    *,
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Save a model as a folder that `zoo.load` reads: `model.safetensors`, `config.yaml` and a model card, `README.md`.

    A saved model that is there already is replaced. Whenever this is interrupted, the folder holds the model before or the
    new one, whole.

    Args:
        model: any that `zoo.build` or `zoo.load` gave.
        folder: where; a new one, an empty one, or a saved model's.
        classes: their names, for the card and for who draws masks; by default those that the model has.
        metrics: plain data about how good it is, for the card.

    Raises:
        OptionError: the encoder is a module of yours, which no id names, or there are other than `classes` names or colours.
        ConfigError: the folder holds other files.
    """
    place = Path(folder)
    names = tuple(classes) or model.class_names
    _check(model, names, place)
    content = save({key: _plain(value) for key, value in model.state_dict().items()})
    sha256 = hashlib.sha256(content).hexdigest()
    before = _current(place)

    def facts(weights: str) -> SavedModel:
        return SavedModel.of(
            model.pairing,
            model.plan,
            model.preprocessing,
            model.licences,
            weights=weights,
            sha256=sha256,
            classes=names,
            colours=model.colours,
            metrics=metrics or {},
        )

    if before is None:
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            _write_all(draft, facts(WEIGHTS), content, model)
            if place.is_dir():
                place.rmdir()  # it is empty
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place
    if before.sha256 == sha256:
        _write_all(place, facts(before.weights), content, model)
        return place
    other = f"model-{sha256[:8]}.safetensors" if before.weights == WEIGHTS else WEIGHTS
    _write_all(place, facts(other), content, model)
    (place / before.weights).unlink(missing_ok=True)
    return place


def _check(model: SegmentationModel, names: tuple[str, ...], place: Path) -> None:
    pairing = model.pairing
    if pairing.encoder.startswith(f"{MODULE}:"):
        raise OptionError(
            f"The encoder {pairing.encoder} is a module of yours, which no id names, so that the model could not be built "
            "again. Register it (zoo.register_encoder), or save model.state_dict()."
        )
    for what, given in (("classes: {} names", names), ("{} colours", model.colours)):
        if given and len(given) != pairing.classes:
            raise OptionError(f"{what.format(len(given))} were given, and the model has {pairing.classes} classes.")
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / CONFIG).is_file()):
        raise ConfigError(f"{place} holds other files than a saved model's; nothing is written there. Give a new folder.")


def _current(place: Path) -> SavedModel | None:
    """Return what the folder holds; None for nothing."""
    path = place / CONFIG
    if not path.is_file():
        return None
    return checked(SavedModel, read_mapping(path, "format: 1"), f"{path} is no saved model's, and is not replaced")


def _write_all(place: Path, facts: SavedModel, content: bytes, model: SegmentationModel) -> None:
    """Write the weights, then what names them: until that is there, whatever named others still does."""
    replace_file(place / facts.weights, content)
    replace_file(place / CONFIG, facts.to_yaml().encode())
    replace_file(place / CARD, card_of(model, facts).encode())


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor as safetensors takes it: on the CPU, contiguous, with a memory of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous() if tensor.layout == torch.strided else tensor.detach().to_dense()
