"""Build models of smp, to compare zoo's models with, for which smp's constructor alone does not suffice."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

import zoo

__all__ = ["unet_on_timm"]


def unet_on_timm(architecture: str, *, weights: str, **options: Any) -> nn.Module:
    """Return `smp.Unet` with an encoder of timm. The encoder has the weights that zoo loads for `timm:ARCHITECTURE`.

    A benchmark can then compare both libraries with the same pretrained encoder, even if smp cannot fetch the weights. The
    model's attribute `preprocessing` is the normalization that these weights expect. zoo applies it when it trains the model.

    Args:
        architecture: timm's name of the architecture, such as "tf_efficientnet_lite0".
        weights: the `weights` of `zoo.build` for a `timm:` encoder.
        options: keyword arguments of `smp.Unet`, such as `classes`.

    Raises:
        zoo.errors.WeightsError: the weights cannot be loaded, or smp's encoder does not have the same tensors as zoo's.
    """
    model: Any = smp.Unet(f"tu-{architecture}", encoder_weights=None, **options)
    with torch.random.fork_rng(devices=[]):
        built = zoo.build(f"timm:{architecture}", "unet-basic", weights=weights, in_channels=options.get("in_channels", 3))
    state = {key.partition(".")[2]: value for key, value in built.encoder.state_dict().items()}
    try:
        model.encoder.model.load_state_dict(state)
    except RuntimeError as cause:
        raise zoo.errors.WeightsError(
            f"The encoder of smp.Unet on {architecture} does not have the tensors of timm:{architecture}: {cause}"
        ) from cause
    model.preprocessing = built.preprocessing
    assert isinstance(model, nn.Module)
    return model
