"""Save a model as a folder with its weights, its configuration and a model card: completely or not at all."""

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
"""The beginning of the name of the temporary folder that is created in an existing empty folder. If the process is killed, the
temporary folder may remain there."""


def save(
    model: SegmentationModel,
    folder: str | PathLike[str],
    *,
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Save a model as a folder that `zoo.load` reads: `model.safetensors`, `config.yaml` and a model card, `README.md`.

    If the folder contains a saved model, that model is replaced. After an interruption, the folder contains either the
    complete previous model or the complete new one.

    Args:
        model: a model from `zoo.build` or `zoo.load`.
        folder: a new folder, an empty one, or the folder of a saved model.
        classes: the names of the classes, for the card and for tools that draw masks; by default the names that the model has.
        metrics: measured results of the model as plain data, for the card.

    Raises:
        OptionError: the encoder is a plain module, not a registered encoder; the number of names or colors is not the number of
            classes; the metrics are not plain data; or the folder cannot be written.
        ConfigError: the folder contains other files.
        WeightsError: the model's weights contain NaN or infinity.
    """
    try:
        place = resolve_links(folder)  # a symbolic link is kept
    except OSError as cause:
        raise OptionError(f"{folder} cannot be written: {cause.strerror}. Choose another folder.") from cause
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
    """Return the name of the new weights file.

    If the weights differ from those in the folder, the new file gets another name, since the old file stays until the new file
    is complete.
    """
    if before is None:
        return WEIGHTS
    if before.sha256 == sha256:
        return before.weights
    return f"model-{sha256[:8]}.safetensors" if before.weights == WEIGHTS else WEIGHTS


def _write_new(place: Path, facts: SavedModel, content: bytes, model: SegmentationModel) -> None:
    """Write all files to a temporary folder. Then rename it to `place`; if `place` is an empty folder, move the files there."""
    is_there = place.is_dir()
    draft = place / f"{DRAFT}{os.getpid()}" if is_there else place.with_name(f".{place.name}.{os.getpid()}")
    for left in (draft, *place.glob(f"{DRAFT}*")):
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _write_all(draft, facts, content, model)
        if is_there:
            for name in (facts.weights, CARD, CONFIG):  # the configuration comes last, since it makes the folder a saved model
                (draft / name).replace(place / name)
        else:
            draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(model: SegmentationModel, names: Sequence[str], place: Path) -> None:
    pairing = model.pairing
    if pairing.encoder.startswith(f"{MODULE}:"):
        raise OptionError(
            f"The encoder {pairing.encoder} is a plain module, not a registered encoder, so zoo.load could not build it. "
            "Register it with zoo.register_encoder, or save model.state_dict()."
        )
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise OptionError(
            f"classes must be a sequence of names, one for each class, such as ['ground', 'road']; found {names!r}."
        )
    for what, given in (("classes: {} names", names), ("{} colors", model.colors)):
        if given and len(given) != pairing.classes:
            raise OptionError(f"{what.format(len(given))} were given, but the model has {pairing.classes} classes.")
    is_other = is_folder(place) and any(not entry.name.startswith(DRAFT) for entry in place.iterdir())
    if is_regular(place) or (is_other and not (place / CONFIG).is_file()):
        raise ConfigError(f"{place} contains files but no saved model, so nothing was written there. Choose a new folder.")


def _current(place: Path) -> SavedModel | None:
    """Return the description of the saved model in a folder; None if there is none."""
    path = place / CONFIG
    if not os.path.lexists(path):
        return None
    return read_facts(
        SavedModel, read_mapping(path, "format: 1"), f"{path} does not describe a saved model, so it is not replaced"
    )


def _write_all(place: Path, facts: SavedModel, content: bytes, model: SegmentationModel) -> None:
    """Write all files. The weights are written before the configuration, which therefore always names a complete file."""
    replace_file(place / facts.weights, content)
    replace_file(place / CONFIG, facts.to_yaml().encode())
    replace_file(place / CARD, card_of(model, facts).encode())


def _on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor in the form that safetensors requires: on the CPU, contiguous, and in memory of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous() if tensor.layout == torch.strided else tensor.detach().to_dense()


def _plain(value: Any, name: str) -> Any:
    """Return metrics as data that YAML can store. NumPy's numbers are converted to Python's."""
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
        "Convert a tensor or an array with `.tolist()`."
    )
