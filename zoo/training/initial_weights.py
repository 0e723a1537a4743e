"""Start training from the weights of a saved model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.common.format_names import format_names
from zoo.data.value_ranges import ValueRange, format_range
from zoo.errors import WeightsError
from zoo.model.model import SegmentationModel

__all__ = ["digest_of_weights", "start_from"]

AUX = "aux_heads."


def digest_of_weights(model: SegmentationModel) -> str:
    """Return a short hash of a model's weights, normalization and class names."""
    digest = hashlib.sha256(repr((model.preprocessing, model.class_names)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def start_from(model: SegmentationModel, start: SegmentationModel, source: str, classes: tuple[str, ...]) -> list[str]:
    """Copy the weights and the normalization of `start` to `model`, which has the same architecture.

    If the two models have different numbers of classes, weights whose shapes depend on the number of classes are not copied.

    Args:
        model: the model to train.
        start: the model to start from.
        source: the file or repository of the model to start from, for messages.
        classes: the names of the classes of the model to train.

    Returns:
        Notes for the user, such as that the head is new.

    Raises:
        WeightsError: the two models differ in more than the weights that depend on the number of classes.
    """
    wanted, found = model.state_dict(), start.state_dict()
    numbers = (start.pairing.classes, model.pairing.classes)
    kept = [name for name in wanted if name in found and _depends_on_classes(found[name], wanted[name], numbers)]
    aux = [name for name in wanted.keys() ^ found.keys() if name.startswith(AUX)]
    other = [
        name
        for name in [*wanted, *(found.keys() - wanted.keys())]
        if name not in kept and name not in aux and not _have_equal_shapes(found, wanted, name)
    ]
    if other:
        difference = f"{start.pairing} instead of {model.pairing}"
        raise WeightsError(
            f"init_from: {source} is another model ({difference}): {len(other)} tensors are only in one of them or have other "
            f"shapes ({format_names(sorted(other), 3)}). Train the pairing of that model, or leave init_from out."
        )
    changes = {name: tensor for name, tensor in found.items() if name in wanted and name not in kept}
    model.load_state_dict({**wanted, **changes})
    model.preprocessing = start.preprocessing
    notes = []
    if kept:
        notes.append(f"the head is new, since {source} has {numbers[0]} classes and the data have {numbers[1]}")
    elif start.class_names and tuple(start.class_names) != classes:
        notes.append(
            f"the head of {source} is kept, although its classes ({format_names(start.class_names)}) are not those of the data "
            f"({format_names(classes)})"
        )
    if start.value_range != model.value_range:
        notes.append(
            f"{source} was trained on pixels scaled by the value range {_describe(start.value_range)}, but the data are scaled "
            f"by {_describe(model.value_range)}. Set value_range in the data to scale both alike"
        )
    if aux:
        made = "new" if any(name in wanted for name in aux) else "left out"
        notes.append(
            f"the auxiliary heads are {made}: aux_levels is {model.pairing.aux_levels}, but {source} has aux_levels="
            f"{start.pairing.aux_levels}"
        )
    return notes


def _depends_on_classes(found: Tensor, wanted: Tensor, numbers: tuple[int, int]) -> bool:
    """Return whether the shapes of two tensors differ, but only in proportion to the two numbers of classes."""
    if found.shape == wanted.shape or found.ndim != wanted.ndim:
        return False
    sides = zip(found.shape, wanted.shape, strict=True)
    return all(before == after or before * numbers[1] == after * numbers[0] for before, after in sides)


def _describe(value_range: ValueRange | None) -> str:
    return "of the dtype" if value_range is None else format_range(value_range)


def _have_equal_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> bool:
    return name in found and name in wanted and found[name].shape == wanted[name].shape
