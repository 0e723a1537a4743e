"""smp's own models as the benchmark's references, where these need more than smp's constructor."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

import zoo

__all__ = ["unet_on_timm"]


def unet_on_timm(architecture: str, *, weights: str, **options: Any) -> nn.Module:
    """Return `smp.Unet` on an architecture of timm's, its encoder with the weights that `timm:` loads.

    So both are compared with the same pretrained encoder, also where smp cannot fetch any. The weights' normalization is
    at `preprocessing`, for whoever trains it.

    Args:
        architecture: timm's name, such as "tf_efficientnet_lite0".
        weights: as `zoo.build` takes them for `timm:` encoders.
        options: smp's own, such as `classes`.

    Raises:
        zoo.errors.WeightsError: they cannot be loaded, or smp holds other parts of the architecture.
    """
    model: Any = smp.Unet(f"tu-{architecture}", encoder_weights=None, **options)
    with torch.random.fork_rng(devices=[]):
        built = zoo.build(f"timm:{architecture}", "unet-basic", weights=weights, in_channels=options.get("in_channels", 3))
    state = {key.partition(".")[2]: value for key, value in built.encoder.state_dict().items()}
    try:
        model.encoder.model.load_state_dict(state)
    except RuntimeError as cause:
        raise zoo.errors.WeightsError(
            f"smp.Unet on {architecture} does not hold what timm:{architecture} holds: {cause}"
        ) from cause
    model.preprocessing = built.preprocessing
    assert isinstance(model, nn.Module)
    return model
