"""Take over a model of another library, by the plugin that knows the library."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from torch import nn

from zoo.common.foreign_code import plugin_code
from zoo.registry.registry import default_registry
from zoo.registry.specs import Preprocessing, import_factory

if TYPE_CHECKING:
    from zoo.model.model import SegmentationModel

__all__ = ["from_smp"]


def from_smp(model: nn.Module | str | PathLike[str], *, preprocessing: Preprocessing | None = None) -> SegmentationModel:
    """Take over a model of segmentation_models_pytorch: its pairing, and a copy of its weights.

    The result gives the same logits, which is tried on one image before it is returned, and takes images of any size.
    smp's activation behind the logits and its auxiliary classifier are left out, with a warning. A `zoo.Predictor` refuses a
    model of several classes with a sigmoid, since its pixels may have several classes each.

    Args:
        model: one of smp's twelve, on any device, in any mode; or the folder that its `save_pretrained` wrote. Its encoder is
            one of smp's own, or timm's (`tu-NAME`).
        preprocessing: mean, std and value range that its weights were trained with. smp keeps these apart from the model;
            None leaves pixels as they are.

    Returns:
        A model on the same device, in the same mode and dtype; in eval mode where it comes from a folder.

    Raises:
        OptionError: it is none of smp's, or was made in a way that no pairing has.
        WeightsError: the folder cannot be read, its weights do not fit the pairing, or the outputs differ.
        PluginError: the plugin for smp is switched off or broken.

    Example:
        >>> model = zoo.from_smp(smp.Unet("resnet34", encoder_weights="imagenet"))
        >>> model.pairing.encoder, model.pairing.decoder
        ('smp:resnet34', 'smp:unet')
    """
    path = default_registry().takeover("segmentation_models_pytorch")
    with plugin_code(f"Importing {path}, which takes over smp's models,", avoidance="Uninstall its plugin to do without it."):
        take_over = import_factory(path)
    taken: SegmentationModel = take_over(model, preprocessing=preprocessing)
    return taken
