"""Describe smp's encoders and their licenses, without importing smp or torch.

The descriptions come from an index file that is shipped with this plugin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import zoo

__all__ = ["Architecture", "index"]

SHIPPED = Path(__file__).with_name("index.json")

NVIDIA = "LicenseRef-NVIDIA-SegFormer (non-commercial)"
APPLE = "LicenseRef-Apple-MobileOne"
CC_BY_NC = "CC-BY-NC-4.0 (non-commercial)"

SOURCES = {
    "densenet": "Huang et al. 2017, Densely Connected Convolutional Networks (arXiv:1608.06993)",
    "dpn": "Chen et al. 2017, Dual Path Networks (arXiv:1707.01629)",
    "efficientnet": "Tan and Le 2019, EfficientNet (arXiv:1905.11946)",
    "inceptionresnetv2": "Szegedy et al. 2017, Inception-v4, Inception-ResNet (arXiv:1602.07261)",
    "inceptionv4": "Szegedy et al. 2017, Inception-v4, Inception-ResNet (arXiv:1602.07261)",
    "mix_transformer": "Xie et al. 2021, SegFormer (arXiv:2105.15203)",
    "mobilenet": "Sandler et al. 2018, MobileNetV2 (arXiv:1801.04381)",
    "mobileone": "Vasu et al. 2023, MobileOne (arXiv:2206.04040)",
    "resnet": "He et al. 2016, Deep Residual Learning (arXiv:1512.03385); Xie et al. 2017, ResNeXt (arXiv:1611.05431)",
    "senet": "Hu et al. 2018, Squeeze-and-Excitation Networks (arXiv:1709.01507)",
    "timm_efficientnet": "Tan and Le 2019, EfficientNet (arXiv:1905.11946)",
    "timm_sknet": "Li et al. 2019, Selective Kernel Networks (arXiv:1903.06586)",
    "vgg": "Simonyan and Zisserman 2015, VGG (arXiv:1409.1556)",
    "xception": "Chollet 2017, Xception (arXiv:1610.02357)",
}
"""A mapping from the names of smp's modules to the papers of the encoders that these modules define. `Architecture.source` adds
the name of smp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One of smp's encoders, as its entry in index.json describes it.

    Attributes:
        module: the module of smp that defines the encoder.
        channels: the number of channels of the map at each of the strides 1, 2, 4, 8, 16 and 32; 0 if there is no such map.
        dilates: whether the encoder can be built with the output stride 8 or 16, by dilated convolutions.
        leaves_unused: whether the encoder has parameters that none of its maps needs, even if all maps are requested.
        weights: the names of the pretrained weights.
    """

    module: str
    channels: tuple[int, ...]
    dilates: bool
    leaves_unused: bool
    weights: tuple[str, ...]

    def pyramid(self, output_stride: int = 32) -> zoo.plugin.Pyramid:
        """Return the maps of the encoder, from `stage0` (the image's resolution, if there is such a map) to `stage5`."""
        return tuple(
            zoo.plugin.FeatureMap(name=f"stage{level}", channels=width, stride=min(2**level, output_stride))
            for level, width in enumerate(self.channels)
            if width
        )

    @property
    def source(self) -> str:
        """The paper, and the origin of the code."""
        return f"{SOURCES[self.module]}; segmentation_models_pytorch"

    @property
    def license(self) -> str:
        """The license of the code: smp's own, or that of the project from which smp copied the code."""
        return {"mix_transformer": NVIDIA, "mobileone": APPLE}.get(self.module, "MIT")

    def weights_license(self, weights: str) -> str:
        """Return the license of these weights; "" if it is unknown."""
        if self.module == "mix_transformer":
            return NVIDIA
        if weights in ("instagram", "ssl", "swsl"):  # facebookresearch: WSL-Images, semi-supervised-ImageNet1K-models
            return CC_BY_NC
        if self.module in ("efficientnet", "timm_efficientnet"):  # tensorflow/tpu
            return "Apache-2.0"
        return ""


@cache
def index() -> Mapping[str, Architecture]:
    """Return a mapping from the name of each of smp's own encoders to its description.

    The descriptions are those of the smp version for which the index file was written.
    """
    return {
        name: Architecture(
            module=entry["module"],
            channels=tuple(entry["channels"]),
            dilates=entry["dilates"],
            leaves_unused=entry["unused"],
            weights=tuple(entry["weights"]),
        )
        for name, entry in json.loads(SHIPPED.read_bytes())["encoders"].items()
    }
