"""Build and run one pairing on the meta device, or on the CPU if the model's code reads the values of tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.benchmark.matrix.cells import CLASSES, Cell, Outcome
from zoo.benchmark.measuring.failures import format_error
from zoo.common.foreign_code import no_exits
from zoo.errors import PluginError, ZooError
from zoo.model.building import build_pairing
from zoo.model.parameters import count_parameters
from zoo.pairing.pairing import Pairing

__all__ = ["check", "check_all"]

PASSING_ERRORS = (ImportError, OSError, MemoryError)
"""Exceptions in a plugin whose cause may be the state of the machine. If so, a later run may succeed."""


def check(encoder: str, decoder: str) -> Outcome:
    """Build a pairing and run it in eval mode on one small image. An exception becomes the error of the cell."""
    try:
        with warnings.catch_warnings(), no_exits("A call of the model"):
            warnings.simplefilter("ignore")  # users see these warnings when they build the model
            return Outcome(cell=_build_and_run(encoder, decoder), is_lasting=True)
    except Exception as cause:  # noqa: BLE001 - a plugin's model may raise anything
        cell = Cell(encoder=encoder, decoder=decoder, error=format_error(cause))
        return Outcome(cell=cell, is_lasting=_is_lasting(cause))


def check_all(items: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any] | None]:
    """For each pairing, yield None when its check begins, and the outcome as plain data when it ends.

    Called in a child process. The items are the ids of an encoder and a decoder.
    """
    torch.set_num_threads(1)
    for encoder, decoder in items:
        yield None
        yield check(encoder, decoder).as_dict()


def _build_and_run(encoder: str, decoder: str) -> Cell:
    try:
        return _run(encoder, decoder, "meta")
    except (NotImplementedError, RuntimeError) as cause:
        if "meta tensor" not in str(cause):
            raise
        return _run(encoder, decoder, "cpu")  # for a model whose code reads tensor values, such as timm's gemma4


def _run(encoder: str, decoder: str, device: str) -> Cell:
    with torch.device(device):
        model = build_pairing(Pairing(encoder, decoder, classes=CLASSES))
    _, (height, width) = model.plan.sizes.fit(64, 96)
    image = torch.zeros(1, model.pairing.in_channels, height, width, device=device)
    with torch.inference_mode():
        logits = model.eval()(image)
    expected = (1, CLASSES, height, width)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else repr(logits)
        raise PluginError(f"{encoder} x {decoder} returns {returned} for an image of {height} x {width}; expected {expected}.")
    return Cell(
        encoder=encoder,
        decoder=decoder,
        maps=model.plan.maps,
        adapters=model.plan.adapters,
        adapter_parameters=count_parameters(model.adapters),
        parameters=count_parameters(model),
        image_size=(height, width),
    )


def _is_lasting(cause: BaseException) -> bool:
    """Return whether the same ids and versions will always give this error.

    True for a `ZooError`, unless an id is unknown or ambiguous, or the `__cause__` of the error is one of `PASSING_ERRORS`.
    """
    return (
        isinstance(cause, ZooError) and not isinstance(cause, LookupError) and not isinstance(cause.__cause__, PASSING_ERRORS)
    )
