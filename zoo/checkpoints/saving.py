"""A model as a folder: weights, what they are weights of, and a card that says so; written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from zoo.checkpoints.hub import CONFIG
from zoo.checkpoints.matching import check_finite
from zoo.checkpoints.model_card import CARD, card_of
from zoo.checkpoints.saved_model import SavedModel, find_versions, read_facts
from zoo.common.atomic_write import replace_file
from zoo.common.configuration import read_mapping
from zoo.common.regular_files import is_folder, is_regular, resolve_links
from zoo.errors import ConfigError, OptionError
from zoo.model.model import SegmentationModel
from zoo.registry.registry import MODULE

__all__ = ["save"]

WEIGHTS = "model.safetensors"
DRAFT = ".draft."
"""What the folder in an empty folder begins with that a model is written to first; a kill may leave it."""


def save(
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
        OptionError: the encoder is a module of yours, which no id names, there are other than `classes` names or colors,
            metrics are not plain data, or the folder cannot be written.
        ConfigError: the folder holds other files.
        WeightsError: the model's weights hold NaN or infinity.
    """
    try:
        place = resolve_links(folder)  # a link stays one
    except OSError as cause:
        raise OptionError(f"{folder} cannot be written: {cause.strerror}. Give another folder.") from cause
    names = classes if isinstance(classes, str) else tuple(classes) or model.class_names
    _check(model, names, place)
    check_finite(model.state_dict(), model, "The model cannot be saved")
    before = _current(place)
    content = serialize({key: _on_cpu(value) for key, value in model.state_dict().items()})
    sha256 = hashlib.sha256(content).hexdigest()
    facts = SavedModel.of(
        model,
        names,
        format=1,
        versions=find_versions(),
        weights=_choose_name(before, sha256),
        sha256=sha256,
        metrics=_plain(metrics or {}, "metrics"),
    )
    try:
        if before is None:
            _write_new(place, facts, content, model)
        else:
            _write_all(place, facts, content, model)
            if before.weights != facts.weights:
                (place / before.weights).unlink(missing_ok=True)
    except OSError as cause:
        raise OptionError(f"{place} cannot be written: {cause.strerror}.") from cause
    return Path(folder)


def _choose_name(before: SavedModel | None, sha256: str) -> str:
    """Return a name for the file of weights other than that of the weights before, which stay until the new ones are whole."""
    if before is None:
        return WEIGHTS
    if before.sha256 == sha256:
        return before.weights
    return f"model-{sha256[:8]}.safetensors" if before.weights == WEIGHTS else WEIGHTS


def _write_new(place: Path, facts: SavedModel, content: bytes, model: SegmentationModel) -> None:
    """Write all of it elsewhere, and put it there at once: as a folder, or into an empty one that somebody made."""
    is_there = place.is_dir()
    draft = place / f"{DRAFT}{os.getpid()}" if is_there else place.with_name(f".{place.name}.{os.getpid()}")
    for left in (draft, *place.glob(f"{DRAFT}*")):
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _write_all(draft, facts, content, model)
        if is_there:
            for name in (facts.weights, CARD, CONFIG):  # the last makes it a saved model
                (draft / name).replace(place / name)
        else:
            draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(model: SegmentationModel, names: Sequence[str], place: Path) -> None:
    pairing = model.pairing
    if pairing.encoder.startswith(f"{MODULE}:"):
        raise OptionError(
            f"The encoder {pairing.encoder} is a module of yours, which no id names, so that the model could not be built "
            "again. Register it (zoo.register_encoder), or save model.state_dict()."
        )
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"classes: a sequence of names, one a class, such as ['ground', 'road']; found {names!r}.")
    for what, given in (("classes: {} names", names), ("{} colors", model.colors)):
        if given and len(given) != pairing.classes:
            raise OptionError(f"{what.format(len(given))} were given, and the model has {pairing.classes} classes.")
    is_other = is_folder(place) and any(not entry.name.startswith(DRAFT) for entry in place.iterdir())
    if is_regular(place) or (is_other and not (place / CONFIG).is_file()):
        raise ConfigError(f"{place} holds other files than a saved model's; nothing is written there. Give a new folder.")


def _current(place: Path) -> SavedModel | None:
    """Return what the folder holds; None for nothing."""
    path = place / CONFIG
    if not os.path.lexists(path):
        return None
    return read_facts(
        SavedModel, read_mapping(path, "format: 1"), f"{path} does not describe a saved model, and is not replaced"
    )


def _write_all(place: Path, facts: SavedModel, content: bytes, model: SegmentationModel) -> None:
    """Write the weights, then what names them: until that is there, whatever named others still does."""
    replace_file(place / facts.weights, content)
    replace_file(place / CONFIG, facts.to_yaml().encode())
    replace_file(place / CARD, card_of(model, facts).encode())


def _on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor as safetensors takes it: on the CPU, contiguous, with a memory of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous() if tensor.layout == torch.strided else tensor.detach().to_dense()


def _plain(value: Any, name: str) -> Any:
    """Return metrics as YAML holds them: NumPy's numbers are numbers, too."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    raise OptionError(
        f"{name} must be plain data (numbers, text, lists, mappings whose keys are text); found a {type(value).__name__}. "
        "A tensor's or an array's `.tolist()` is."
    )
