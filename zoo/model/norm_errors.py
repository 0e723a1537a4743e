"""Explain PyTorch's error 'Expected more than 1 value per channel when training': name the layer and the remedies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["explain_single_values", "is_of_single_values"]

MESSAGES = ("Expected more than 1 value per channel when training", "Expected more than 1 spatial element when training")


def is_of_single_values(cause: ValueError) -> bool:
    """Return whether a norm raised the error because it received a single value per channel, which has no variance."""
    return str(cause).startswith(MESSAGES)


def explain_single_values(model: nn.Module, forward: Callable[[Tensor], Any], image: Tensor) -> str:
    """Return a message that names the layer, if it can be found, and the remedies.

    Args:
        model: the model that contains the layer. Its `decoder` may have an option `norm`.
        forward: the method of the model that raised the error.
        image: the batch that caused the error, (N, C, H, W).
    """
    name, layer = _failing_norm(model, forward, image) or ("a norm", None)
    kind = f" ({type(layer).__name__})" if layer is not None else ""
    remedies = ["a batch of two or more", "larger images (unless the layer pools whole maps)"]
    decoder = getattr(model, "decoder", None)
    if name.startswith("decoder.") and "norm" in inspect.signature(type(decoder)).parameters:
        remedies.append("a model built with decoder_options={'norm': 'group'}")
    if name.startswith("encoder."):
        remedies.append("model.encoder.eval(), which uses its running statistics")
    return (
        f"{name}{kind} received one value per channel from images of shape {tuple(image.shape)}, but train mode needs more. "
        f"What helps: {', or '.join(remedies)}."
    )


class _Forward(nn.Module):
    """Wraps one method of a model as a module, so that `functional_call` can replace the model's tensors."""

    def __init__(self, model: nn.Module, method: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, image: Tensor) -> Any:
        return self._method(image)


def _failing_norm(model: nn.Module, forward: Callable[[Tensor], Any], image: Tensor) -> tuple[str, nn.Module] | None:
    """Return the name of the last norm that was called before the error, and the norm; None if they cannot be found.

    The batch is run once more, on the meta device, so that neither the model's statistics nor the random state change.
    """
    called: list[tuple[str, nn.Module]] = []
    wrapper = _Forward(model, forward)
    on_meta = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in (*wrapper.named_parameters(), *wrapper.named_buffers())
    }
    handles = [
        module.register_forward_pre_hook(lambda module, _, name=name: called.append((name, module)))
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
    ]
    try:
        functional_call(wrapper, on_meta, torch.empty_like(image, device="meta"))
    except ValueError as cause:
        return called[-1] if called and is_of_single_values(cause) else None
    except Exception:  # noqa: BLE001 - a model need not run on meta
        return None
    finally:
        for handle in handles:
            handle.remove()
    return None
