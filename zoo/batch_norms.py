"""What PyTorch's bare 'Expected more than 1 value per channel when training' means: which layer, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from torch import nn

__all__ = ["is_for_want_of_values", "told_want_of_values"]

BARE = ("Expected more than 1 value per channel when training", "Expected more than 1 spatial element when training")


def is_for_want_of_values(cause: ValueError) -> bool:
    """Tell whether a norm was given a single value a channel, of which there is no variance."""
    return str(cause).startswith(BARE)


def told_want_of_values(model: nn.Module, cause: ValueError, image: Sequence[int]) -> str:
    """Return a message that names the layer and the remedies.

    Args:
        model: has the layer somewhere within; its `decoder` may have an option `norm`.
        cause: what PyTorch raised.
        image: the shape of the batch that led to it.
    """
    layer = next((module for module in _modules_of(cause) if _is_norm(module)), None)
    name = next((name for name, module in model.named_modules() if module is layer), "a norm")
    kind = type(layer).__name__ if layer is not None else "norm"
    remedies = ["a batch of two or more", "larger images (unless the layer pools whole maps)"]
    decoder = getattr(model, "decoder", None)
    if name.startswith("decoder.") and "norm" in inspect.signature(type(decoder)).parameters:
        remedies.append("a model built with decoder_options={'norm': 'group'}")
    if name.startswith("encoder."):
        remedies.append("model.encoder.eval(), which uses the statistics it has")
    return (
        f"{name} ({kind}) got one value a channel from images of shape {tuple(image)}, and in train mode it needs more. "
        f"What helps: {', or '.join(remedies)}."
    )


def _modules_of(cause: BaseException) -> Iterator[nn.Module]:
    """Yield the modules whose methods the exception came through, the innermost first."""
    frames = []
    step = cause.__traceback__
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    for frame in reversed(frames):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            yield owner


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()
