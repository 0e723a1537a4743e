"""Any timm architecture as an encoder, through timm's own `features_only` networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

import zoo
from zoo_timm import architectures

__all__ = ["TimmEncoder"]


class TimmEncoder(nn.Module):
    """A timm architecture without its classifier (Wightman, huggingface/pytorch-image-models).

    Shapes: (N, in_channels, H, W) -> the maps asked for, each (N, C, H/stride, W/stride).

    Args:
        architecture: timm's name.
        maps: names of the maps to return (timm's module names), fine to coarse; later stages are dropped.
        in_channels: for other than 3 timm adapts the first convolution, pretrained weights included.
        weights: None, "default" (timm's own pretrained weights, from the hub), or the path of a file that timm can read.
        options: timm's own keywords, such as `drop_path_rate`.

    Raises:
        zoo.WeightsError: weights that are not to be had or do not fit.
    """

    def __init__(
        self,
        *,
        architecture: str,
        maps: Sequence[str],
        in_channels: int = 3,
        weights: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        names = [name for name, _, _ in architectures()[architecture]["maps"]]
        wanted: dict[str, Any] = {
            "features_only": True,
            "out_indices": tuple(names.index(name) for name in maps),
            "in_chans": in_channels,
        }
        if weights is None:
            self.network = timm.create_model(architecture, pretrained=False, **wanted, **options)
            self.preprocessing = zoo.Preprocessing.identity(in_channels)
        else:
            self.network = _pretrained(architecture, weights, **wanted, **options)
            config: dict[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
            self.preprocessing = zoo.Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"])).for_channels(
                in_channels
            )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps asked for: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        maps: list[Tensor] = self.network(image)
        return maps


def _pretrained(architecture: str, weights: str, **keywords: Any) -> Any:
    overlay = None
    if weights != "default":
        if not Path(weights).is_file():
            raise zoo.WeightsError(
                f"weights={weights!r} is neither a file nor 'default'. Give None, 'default' (timm's own, from the hub), or "
                "the path of a .pth or .safetensors file with timm's key names."
            )
        overlay = {"file": weights}
    try:
        return timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay, **keywords)
    except Exception as cause:
        where = "from the hub" if overlay is None else f"from {weights}"
        raise zoo.WeightsError(
            f"timm could not load weights {where} into {architecture}: {type(cause).__name__}: {cause}. Without a network, "
            "fetch the weights elsewhere and pass the file's path as weights=."
        ) from cause
