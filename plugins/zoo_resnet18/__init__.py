"""torchvision's ResNet18 as the encoder `resnet18`, with six feature maps. The module itself is in `zoo_resnet18.encoder`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import zoo

WEIGHTS_FILE = "resnet18-f37072fd.pth"
"""The name of the file of torchvision's weights (IMAGENET1K_V1)."""
MAPS = (
    zoo.plugin.FeatureMap(name="stem", channels=64, stride=2),
    zoo.plugin.FeatureMap(name="pool", channels=64, stride=4),
    zoo.plugin.FeatureMap(name="layer1", channels=64, stride=4),
    zoo.plugin.FeatureMap(name="layer2", channels=128, stride=8),
    zoo.plugin.FeatureMap(name="layer3", channels=256, stride=16),
    zoo.plugin.FeatureMap(name="layer4", channels=512, stride=32),
)


@zoo.plugin.hookimpl
def zoo_encoders() -> Iterator[zoo.plugin.EncoderSpec]:
    """Yield torchvision's ResNet18."""
    yield zoo.plugin.EncoderSpec(
        name="resnet18",
        factory="zoo_resnet18.encoder:ResNet18Encoder",
        pyramid=MAPS,
        options=(),
        weights=("imagenet",),
        source="He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385); torchvision",
        license="BSD-3-Clause",
        local_weights=_has_local_weights,
    )


def _has_local_weights(_: str, /) -> bool:
    return (hub_folder() / "checkpoints" / WEIGHTS_FILE).is_file()


def hub_folder() -> Path:
    """Return the folder of `torch.hub`, without importing torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return (Path(os.environ.get("TORCH_HOME", cache / "torch")) / "hub").expanduser()
