"""One pairing built and run on the meta device, or with real tensors where it asks for numbers: its cell, or its error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.benchmark.matrix.cells import CLASSES, Cell, Outcome
from zoo.common.foreign_code import no_exits
from zoo.errors import PluginError, ZooError
from zoo.model.building import build_pairing
from zoo.pairing.pairing import Pairing

__all__ = ["check", "check_all"]

PASSING = (ImportError, OSError, MemoryError)
"""What a plugin may raise for the machine's sake, and not again tomorrow."""


def check(encoder: str, decoder: str) -> Outcome:
    """Build the pairing and run it in eval mode on one small image; what is raised becomes the cell's error."""
    try:
        with warnings.catch_warnings(), no_exits("A call of the model"):
            warnings.simplefilter("ignore")  # whoever builds the model in earnest is warned
            return Outcome(cell=_checked(encoder, decoder), is_lasting=True)
    except Exception as cause:  # noqa: BLE001 - a plugin's model may raise anything
        error = f"{type(cause).__name__}: {cause}".strip()
        return Outcome(cell=Cell(encoder=encoder, decoder=decoder, error=error), is_lasting=_is_lasting(cause))


def check_all(pairings: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any] | None]:
    """Yield None as each check begins, and its outcome as plain data: what a child process does."""
    torch.set_num_threads(1)
    for encoder, decoder in pairings:
        yield None
        yield check(encoder, decoder).as_dict()


def _checked(encoder: str, decoder: str) -> Cell:
    try:
        return _run(encoder, decoder, "meta")
    except (NotImplementedError, RuntimeError) as cause:
        if "meta tensor" not in str(cause):
            raise
        return _run(encoder, decoder, "cpu")  # a model that asks for numbers, as timm's gemma4


def _run(encoder: str, decoder: str, device: str) -> Cell:
    with torch.device(device):
        model = build_pairing(Pairing(encoder, decoder, classes=CLASSES))
    _, (height, width) = model.plan.sizes.fit(64, 96)
    image = torch.zeros(1, model.pairing.in_channels, height, width, device=device)
    with torch.inference_mode():
        logits = model.eval()(image)
    expected = (1, CLASSES, height, width)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else repr(logits)
        raise PluginError(f"{encoder} x {decoder} gives {found} for an image of {height} x {width}; expected {expected}.")
    return Cell(
        encoder=encoder,
        decoder=decoder,
        maps=model.plan.maps,
        adapters=model.plan.adapters,
        adapter_parameters=_count(model.adapters),
        parameters=_count(model),
        image_size=(height, width),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_lasting(cause: BaseException) -> bool:
    """Only an error of zoo's own follows from the ids and versions; an id that is not found, not even then."""
    return isinstance(cause, ZooError) and not isinstance(cause, LookupError) and not isinstance(cause.__cause__, PASSING)
