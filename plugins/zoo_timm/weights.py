"""timm's pretrained weights, from the hub or from a file, with nothing left random in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import zoo

__all__ = ["from_file", "from_hub"]

Make = Callable[..., nn.Module]


def from_hub(name: str, weights: str, make: Make) -> nn.Module:
    """Return the network that `make(pretrained=True)` fetches the weights for."""
    try:
        return make(pretrained=True)
    except Exception as cause:
        raise zoo.WeightsError(
            f"timm could not fetch the weights of {name}: {type(cause).__name__}: {cause}. Without a network, fetch "
            "them elsewhere and pass the file's path as weights=."
        ) from cause


def from_file(name: str, weights: str, make: Make) -> nn.Module:
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
                loads.append(make(pretrained=True, pretrained_cfg_overlay={"file": str(path)}))
            except Exception as cause:
                raise zoo.WeightsError(
                    f"{weights} does not fit {name}: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}. "
                    "It must hold a state dict with timm's key names, as torch.save(model.state_dict(), path) writes it."
                ) from cause
    network, other = loads
    twins = other.state_dict()
    left = [key for key, tensor in network.state_dict().items() if not torch.equal(tensor, twins[key])]
    if left:
        raise zoo.WeightsError(
            f"{weights} does not fit {name}: it has nothing for {len(left)} tensors ({', '.join(left[:3])}, ...), "
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
