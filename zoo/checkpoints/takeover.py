"""Convert a model of another library to a model of zoo. The plugin that supports the library does the conversion."""

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
    """Convert a model of segmentation_models_pytorch to a model of zoo with a copy of its weights.

    The new model returns the same logits as smp's, which is checked on one image. It accepts images of any size. smp's
    activation after the logits and its auxiliary classifier are left out, with a warning. `zoo.Predictor` refuses a model with
    several classes and a sigmoid, since a pixel may then belong to several classes.

    Args:
        model: an instance of one of smp's twelve model classes, on any device and in any mode; or a folder that the instance's
            `save_pretrained` wrote. The encoder must be smp's own or one of timm (`tu-NAME`).
        preprocessing: the mean, std and value range with which the weights were trained. smp does not store them in the
            model. None leaves the pixels unchanged.

    Returns:
        A model on the same device and in the same mode and dtype. A model from a folder is in eval mode.

    Raises:
        OptionError: the model is not one of smp's, or was built with options that zoo does not support.
        WeightsError: the folder cannot be read, its weights do not fit zoo's model, or the outputs of the two models differ.
        PluginError: the plugin for smp is disabled or broken.

    Example:
        >>> model = zoo.from_smp(smp.Unet("resnet34", encoder_weights="imagenet"))
        >>> model.pairing.encoder, model.pairing.decoder
        ('smp:resnet34', 'smp:unet')
    """
    path = default_registry().takeover("segmentation_models_pytorch")
    with plugin_code(f"Importing {path}, which converts smp's models,", avoidance="Uninstall its plugin to avoid this."):
        take_over = import_factory(path)
    taken: SegmentationModel = take_over(model, preprocessing=preprocessing)
    return taken
