"""Convert a model of segmentation_models_pytorch, with its weights, to a model of zoo with the same output."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import zoo
from zoo_smp.index import index

__all__ = ["take_over"]

TOLERANCE = 1e-5
"""The largest allowed difference between the outputs of the two models. It is relative to the largest absolute value in smp's
output, or to 1 if that value is smaller than 1."""

Config = Mapping[str, Any]

RENAMED: dict[str, tuple[str, dict[str, str]]] = {
    "DPT": (
        "dpt",
        {
            "decoder_readout": "readout",
            "decoder_intermediate_channels": "intermediate_channels",
            "decoder_fusion_channels": "channels",
        },
    ),
    "DeepLabV3": (
        "deeplabv3",
        {
            "encoder_output_stride": "output_stride",
            "decoder_channels": "channels",
            "decoder_atrous_rates": "atrous_rates",
            "decoder_aspp_separable": "separable",
            "decoder_aspp_dropout": "dropout",
        },
    ),
    "FPN": (
        "fpn",
        {
            "decoder_pyramid_channels": "channels",
            "decoder_segmentation_channels": "segmentation_channels",
            "decoder_merge_policy": "merge",
            "decoder_dropout": "dropout",
            "decoder_interpolation": "interpolation",
        },
    ),
    "Linknet": ("linknet", {}),
    "MAnet": (
        "manet",
        {
            "decoder_channels": "channels",
            "decoder_pab_channels": "pab_channels",
            "decoder_interpolation": "interpolation",
        },
    ),
    "PAN": (
        "pan",
        {
            "encoder_output_stride": "output_stride",
            "decoder_channels": "channels",
            "decoder_interpolation": "interpolation",
        },
    ),
    "PSPNet": ("pspnet", {"psp_out_channels": "channels", "psp_dropout": "dropout"}),
    "Segformer": ("segformer", {"decoder_segmentation_channels": "channels"}),
    "UPerNet": ("upernet", {"decoder_channels": "channels"}),
    "Unet": (
        "unet",
        {
            "decoder_channels": "channels",
            "decoder_attention_type": "attention",
            "decoder_interpolation": "interpolation",
        },
    ),
}
RENAMED["DeepLabV3Plus"] = ("deeplabv3plus", RENAMED["DeepLabV3"][1])
RENAMED["UnetPlusPlus"] = ("unetplusplus", RENAMED["Unet"][1])
"""For each of smp's classes: the decoder's name in zoo, and zoo's name of each of smp's options."""


def take_over(
    model: nn.Module | str | PathLike[str], *, preprocessing: zoo.Preprocessing | None = None
) -> zoo.SegmentationModel:
    """Convert a model of smp. The documentation of `zoo.from_smp` explains the details."""
    if isinstance(model, str | PathLike):
        model = _open(Path(model))
    kind, config = type(model).__name__, getattr(model, "_hub_mixin_config", None)
    if kind not in RENAMED or not type(model).__module__.startswith("segmentation_models_pytorch.") or not config:
        raise zoo.errors.OptionError(
            f"zoo.from_smp requires a model of segmentation_models_pytorch ({', '.join(sorted(RENAMED))}); "
            f"found {type(model).__module__}.{kind}."
        )
    source: Any = model
    _refuse_what_no_pairing_has(kind, config, source)
    decoder, names = RENAMED[kind]
    options = {name: config[theirs] for theirs, name in names.items() if config.get(theirs) is not None}
    if kind in ("Unet", "UnetPlusPlus") and str(config["encoder_name"]).startswith("vgg"):
        options["center"] = True
    if decoder == "dpt" and options.get("readout") == "add":
        options["readout"] = "ignore"  # models with a class token are refused above; without one, "add" does nothing
    encoder, levels = _encoder_of(config, source)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        built = zoo.build(
            encoder,
            f"smp:{decoder}",
            classes=_classes_of(source.segmentation_head),
            in_channels=config["in_channels"],
            levels=levels,
            decoder_options=options,
        )
    _load(built, source, f"{kind}({config['encoder_name']!r})")
    built.encoder_weights = "those of smp's model"  # possibly random
    num_classes = built.pairing.classes
    built.has_one_class_per_pixel = num_classes == 1 or not _is_sigmoid(_activation_of(source.segmentation_head), num_classes)
    if preprocessing is not None:
        built.preprocessing = preprocessing
    first = next(model.parameters())
    built.to(device=first.device, dtype=first.dtype)
    _compare(built, source)
    return built.train(model.training)


def _open(folder: Path) -> nn.Module:
    """Load a model that `save_pretrained` wrote, and return it in eval mode. No pretrained encoder weights are fetched."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.pop("_model_class")
        if kind not in RENAMED:
            raise ValueError(f"{kind} is not a model of smp")
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            model: nn.Module = getattr(smp, kind)(**{**config, "encoder_weights": None})
        model.load_state_dict(zoo.read_state_dict(folder))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as cause:
        raise zoo.errors.WeightsError(
            f"zoo.from_smp: {folder} contains no model that the installed smp can load: "
            f"{type(cause).__name__}: {cause}. Pass a folder that smp's save_pretrained wrote. To load weights alone, call "
            "zoo.load_weights."
        ) from cause
    return model.eval()


def _refuse_what_no_pairing_has(kind: str, config: Config, source: Any) -> None:
    norm = config.get("decoder_use_norm", "batchnorm")
    if norm not in ("batchnorm", True):
        raise zoo.errors.OptionError(
            f"zoo.from_smp: decoder_use_norm={norm!r} has no counterpart in zoo. Only smp's default, 'batchnorm', is supported."
        )
    if kind == "DPT" and source.encoder.has_prefix_tokens and config.get("decoder_readout") != "ignore":
        raise zoo.errors.OptionError(
            "zoo.from_smp: this DPT reads the encoder's class token "
            f"(decoder_readout={config.get('decoder_readout')!r}), but zoo's encoders return only maps. Pass a DPT that was "
            "built with decoder_readout='ignore'."
        )
    left_out = []
    if config.get("activation") not in (None, "identity"):
        left_out.append(f"the activation {config['activation']!r} (zoo's models return logits)")
    if source.classification_head is not None:
        left_out.append("the auxiliary classifier")
    if left_out:
        warnings.warn(f"zoo.from_smp leaves out {' and '.join(left_out)}.", stacklevel=3)


def _encoder_of(config: Config, source: Any) -> tuple[str, int | None]:
    """Return the encoder's id in zoo, and the number of its strides that smp's model uses (None if the model uses all)."""
    if name := getattr(source.encoder, "name", None):  # an encoder of timm in smp's TimmUniversalEncoder or TimmViTEncoder
        encoder = f"timm:{name}"
        if type(source.encoder).__name__ == "TimmViTEncoder":
            return encoder, None
    elif config["encoder_name"] in index():
        encoder = f"smp:{config['encoder_name']}"
    else:
        raise zoo.errors.OptionError(
            f"zoo.from_smp: the encoder {config['encoder_name']!r} is neither smp's own nor timm's. Other encoders are "
            "not supported."
        )
    used = sum(width > 0 for width in source.encoder.out_channels[1 : config["encoder_depth"] + 1])
    strides = {entry.level for entry in zoo.negotiate(encoder, "smp:unet").pyramid}
    return encoder, used if used < len(strides) else None


def _classes_of(head: nn.Module) -> int:
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1].out_channels


def _activation_of(head: Any) -> nn.Module:
    last: nn.Module = getattr(head, "activation", None) or head[-1]
    return last


def _is_sigmoid(activation: nn.Module, num_classes: int) -> bool:
    """Return whether an activation maps each class to [0, 1] independently, as a sigmoid does and a softmax does not."""
    logits = torch.linspace(-3, 3, num_classes * 16).view(1, num_classes, 4, 4)
    others = torch.cat([logits[:, :1] + 1, logits[:, 1:]], dim=1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as the warning of a softmax without a dimension
            found = _in_eval(activation, lambda: activation(logits.clone()))
            changed = _in_eval(activation, lambda: activation(others.clone()))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    if not isinstance(found, Tensor) or found.shape != logits.shape:
        return False
    return float(found.min()) >= 0 and float(found.max()) <= 1 and torch.equal(found[:, 1:], changed[:, 1:])


def _load(built: zoo.SegmentationModel, source: nn.Module, named: str) -> None:
    """Copy all weights, or raise a WeightsError if the names and shapes of the tensors in the two models differ."""
    state = {key: tensor for key, tensor in source.state_dict().items() if not key.startswith("classification_head.")}
    try:
        zoo.load_weights(built, state)
    except zoo.errors.WeightsError as cause:
        raise zoo.errors.WeightsError(
            f"zoo.from_smp: smp's {named} was built with options that zoo does not support, or was modified after it was "
            f"built. {cause} The model was not converted."
        ) from cause


def _compare(built: zoo.SegmentationModel, source: Any) -> None:
    """Run both models on one image, and raise a WeightsError if their outputs differ."""
    image, expected = _run(built, source)
    with torch.no_grad():
        found = _in_eval(built, lambda: built(image))
    scale = max(1.0, float(expected.abs().max()))
    error = float((found - expected).abs().max()) / scale if found.shape == expected.shape else float("inf")
    if not error <= TOLERANCE:
        raise zoo.errors.WeightsError(
            f"zoo.from_smp: {built.pairing} with the weights of smp's {type(source).__name__} returns a different output "
            f"(relative difference {error:.2g}, at most {TOLERANCE:g} is allowed; shapes {tuple(found.shape)} and "
            f"{tuple(expected.shape)}). The model was not converted."
        )


def _run(built: zoo.SegmentationModel, source: Any) -> tuple[Tensor, Tensor]:
    """Return an image and the logits that smp's model returns for it.

    The image has about 256x288 pixels, a size that zoo's model accepts. If smp's model fails at that size, and the encoder's
    weights state the size on which they were trained, that size is used instead.
    """
    first = next(source.parameters())
    sizes = [built.plan.sizes.fit(256, 288)[1]]
    if trained_for := getattr(getattr(source.encoder, "model", None), "pretrained_cfg", {}).get("input_size"):
        sizes.append((trained_for[1], trained_for[2]))
    for size in sizes:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, built.pairing.in_channels, *size, generator=generator).to(first)
        try:
            with torch.no_grad():
                return image, _in_eval(source, lambda image=image: _logits_of(source, image))  # type: ignore[misc]
        except (AssertionError, RuntimeError, ValueError) as cause:
            error = cause
    tried = ", ".join(f"{height}x{width}" for height, width in sizes)
    raise zoo.errors.WeightsError(
        f"zoo.from_smp: smp's {type(source).__name__} could not be run for a comparison (tried images of {tried}): {error}"
    ) from error


def _logits_of(source: Any, image: Tensor) -> Tensor:
    """Return the output of the head of smp's model, before the activation."""
    last = _activation_of(source.segmentation_head)
    given: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        source(image)
    finally:
        hook.remove()
    return given[0]


def _in_eval(model: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return run()
    finally:
        for module, mode in modes:
            module.training = mode
