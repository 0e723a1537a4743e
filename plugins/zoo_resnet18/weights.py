"""ResNet18's weights from torchvision or a file, brought to the encoder's own keys and number of input channels."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.hub import download_url_to_file, get_dir
from torchvision.models import ResNet18_Weights, resnet18

import zoo

__all__ = ["adapted_to_channels", "load_state_dict", "matched"]

StateDict = Mapping[str, Tensor]


def load_state_dict(weights: str) -> StateDict:
    """Return the state dict of `"imagenet"`, of a repository or of a file; only tensors are read, never code."""
    if weights == "imagenet":
        return _read(_imagenet())
    if weights.startswith("hf-hub:"):
        return _read(zoo.hub_file(weights))
    path = Path(weights).expanduser()
    if not path.is_file():
        raise zoo.WeightsError(
            f"weights={weights!r} is neither a file nor a name that resnet18 knows. Give None, 'imagenet', "
            "'hf-hub:OWNER/NAME', or the path of a .pth or .safetensors file with torchvision's key names."
        )
    return _read(path)


def matched(state: StateDict, wanted: StateDict, weights: str) -> dict[str, Tensor]:
    """Return just the tensors that the encoder has, all of them; the classifier and cut stages may be there besides.

    Raises:
        zoo.WeightsError: a tensor is missing, of another shape, or none of ResNet18's.
    """
    with torch.device("meta"):
        known = resnet18().state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in known]
    reshaped = [
        f"{key}: found {tuple(state[key].shape)}, needed {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or reshaped:
        raise zoo.WeightsError(
            f"weights={weights!r} do not fit resnet18 (torchvision's key names): "
            f"missing {_some(missing)}; unexpected {_some(unexpected)}; of another shape {_some(reshaped)}."
        )
    return {key: state.get(key, tensor) for key, tensor in wanted.items()}


def adapted_to_channels(state: StateDict, in_channels: int) -> StateDict:
    """Fit a first convolution of three input channels to another number, as timm does.

    For one channel the kernels of all three are summed; for others they are repeated in turn and scaled, so that the
    activations keep their size.
    """
    weight = state.get("conv1.weight")
    if in_channels == 3 or weight is None or weight.ndim != 4 or weight.shape[1] != 3:
        return state
    if in_channels == 1:
        adapted = weight.float().sum(dim=1, keepdim=True)
    else:
        repeated = weight.float().repeat(1, math.ceil(in_channels / 3), 1, 1)[:, :in_channels]
        adapted = repeated * (3 / in_channels)
    return {**state, "conv1.weight": adapted.to(weight.dtype)}


def _imagenet() -> Path:
    """Return the file of torchvision's weights, fetched into torch.hub's folder if it is not there."""
    url = ResNet18_Weights.IMAGENET1K_V1.url
    path = Path(get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as cause:
            raise zoo.WeightsError(
                f"weights='imagenet' could not be fetched from {url}: {cause}. Without a network, fetch that file elsewhere "
                f"and put it at {path}, or pass its path as weights=."
            ) from cause
    return path


def _read(path: Path) -> StateDict:
    is_safetensors = path.suffix == ".safetensors"
    try:
        state = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        kind = "safetensors" if is_safetensors else "a state dict of tensors alone (a pickle that may hold code is not read)"
        # What torch says of a refused pickle includes how to run its code; that is no advice to pass on.
        reason = "" if isinstance(cause, pickle.UnpicklingError) else str(cause).partition("\n")[0]
        raise zoo.WeightsError(
            f"{path} could not be read as {kind}: {type(cause).__name__}{reason and f': {reason}'}. "
            "Save it with torch.save(model.state_dict(), path) or safetensors.torch.save_file."
        ) from cause
    if not isinstance(state, Mapping) or not all(isinstance(key, str) and isinstance(state[key], Tensor) for key in state):
        raise zoo.WeightsError(f"{path} holds no state dict (names to tensors); save model.state_dict(), not the model.")
    return state


def _some(entries: list[str]) -> str:
    return f"{len(entries)} ({', '.join(entries[:3])}{', ...' if len(entries) > 3 else ''})" if entries else "none"
