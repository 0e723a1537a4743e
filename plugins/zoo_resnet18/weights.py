"""Read ResNet18's weights: torchvision's own, those of a repository, or those of a file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

from torch import Tensor
from torch.hub import download_url_to_file, get_dir
from torchvision.models import ResNet18_Weights

import zoo

__all__ = ["load_state_dict"]


def load_state_dict(weights: str) -> dict[str, Tensor]:
    """Return the state dict that `weights` names. Only tensors are read, never code.

    Args:
        weights: "imagenet" (torchvision's own weights), "hf-hub:OWNER/NAME" (a repository), or the path of a file.
    """
    if weights == "imagenet":
        return zoo.read_state_dict(_imagenet())
    if not weights.startswith("hf-hub:") and not Path(weights).expanduser().exists():
        raise zoo.errors.WeightsError(
            f"weights={weights!r} is neither a file nor a known name of weights for resnet18. Pass None, 'imagenet', "
            "'hf-hub:OWNER/NAME', or the path of a .pth or .safetensors file with torchvision's key names."
        )
    return zoo.read_state_dict(weights)


def _imagenet() -> Path:
    """Return the path of torchvision's weights in torch.hub's folder, and download them if they are missing."""
    url = ResNet18_Weights.IMAGENET1K_V1.url
    path = Path(get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as cause:
            raise zoo.errors.WeightsError(
                f"weights='imagenet' could not be fetched from {url}: {cause}. If this machine is offline, download that "
                f"file on another machine. Then copy it to {path} on this machine, or pass its path as weights=."
            ) from cause
    return path
