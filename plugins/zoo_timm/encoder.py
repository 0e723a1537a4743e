"""Any timm architecture as an encoder, through timm's own `features_only` networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
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
        zoo.OptionError: a keyword that the architecture does not take.
    """

    def __init__(
        self, *, architecture: str, maps: Sequence[str], in_channels: int = 3, weights: str | None = None, **options: Any
    ) -> None:
        super().__init__()
        indices = {name: index for name, _, _, index in architectures()[architecture]["maps"]}
        wanted = {"out_indices": tuple(indices[name] for name in maps), "in_chans": in_channels, **options}
        if weights is None:
            self.network = _made(architecture, wanted)
            self.preprocessing = zoo.Preprocessing.identity(in_channels)
            return
        with torch.device("meta"):
            _made(architecture, wanted)  # a wrong option is told apart from weights that do not fit
        self.network = _from_hub(architecture, wanted) if weights == "default" else _from_file(architecture, weights, wanted)
        config: dict[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
        preprocessing = zoo.Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"]))
        self.preprocessing = preprocessing.for_channels(in_channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps asked for: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        maps: list[Tensor] = self.network(image)
        return maps


def _made(architecture: str, wanted: dict[str, Any], **weights: Any) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(architecture, features_only=True, **weights, **wanted)
    except TypeError as cause:
        if "unexpected keyword" not in str(cause):
            raise
        raise zoo.OptionError(f"timm:{architecture} does not take every option given: {cause}.") from cause
    return network


def _from_hub(architecture: str, wanted: dict[str, Any]) -> nn.Module:
    try:
        return _made(architecture, wanted, pretrained=True)
    except Exception as cause:
        raise zoo.WeightsError(
            f"timm could not fetch the weights of {architecture}: {type(cause).__name__}: {cause}. Without a network, fetch "
            "them elsewhere and pass the file's path as weights=."
        ) from cause


def _from_file(architecture: str, weights: str, wanted: dict[str, Any]) -> nn.Module:
    """Load a file through timm, and refuse what it leaves random.

    Some of timm's families load without strictness, and would take another network's file in silence. What is equal
    after two loads over different random weights came from the file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise zoo.WeightsError(
            f"weights={weights!r} is neither a file nor 'default'. Give None, 'default' (timm's own, from the hub), or the "
            "path of a .pth or .safetensors file with timm's key names."
        )
    _check_holds_tensors_alone(path)
    loads = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                loads.append(_made(architecture, wanted, pretrained=True, pretrained_cfg_overlay={"file": str(path)}))
            except Exception as cause:
                raise zoo.WeightsError(
                    f"{weights} does not fit {architecture}: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}. "
                    "It must hold a state dict with timm's key names, as torch.save(model.state_dict(), path) writes it."
                ) from cause
    network, other = loads
    twins = other.state_dict()
    left = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, twins[name])]
    if left:
        raise zoo.WeightsError(
            f"{weights} does not fit {architecture}: it has nothing for {len(left)} tensors ({', '.join(left[:3])}, ...), "
            "which would stay random. Pass weights of this architecture."
        )
    return network


def _check_holds_tensors_alone(path: Path) -> None:
    """Refuse a pickle that may hold code; not every version of timm does."""
    if path.suffix == ".safetensors":
        return
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as cause:
        raise zoo.WeightsError(
            f"{path} could not be read as tensors alone (a pickle that may hold code is not read): {type(cause).__name__}. "
            "Save it with torch.save(model.state_dict(), path) or safetensors.torch.save_file."
        ) from cause
