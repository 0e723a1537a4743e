"""Convert a model of segmentation_models_pytorch, with its weights, to a pairing of zoo's with the same output."""

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
"""How far the outputs may differ, over the largest value."""

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
"""By smp's class: the decoder's name here, and its options by smp's names."""


def take_over(
    model: nn.Module | str | PathLike[str], *, preprocessing: zoo.Preprocessing | None = None
) -> zoo.SegmentationModel:
    """Do what `zoo.from_smp` says."""
    if isinstance(model, str | PathLike):
        model = _open(Path(model))
    kind, config = type(model).__name__, getattr(model, "_hub_mixin_config", None)
    if kind not in RENAMED or not type(model).__module__.startswith("segmentation_models_pytorch.") or not config:
        raise zoo.errors.OptionError(
            f"zoo.from_smp takes a model made by segmentation_models_pytorch ({', '.join(sorted(RENAMED))}); "
            f"found {type(model).__module__}.{kind}."
        )
    source: Any = model
    _refuse_what_no_pairing_has(kind, config, source)
    decoder, names = RENAMED[kind]
    options = {name: config[theirs] for theirs, name in names.items() if config.get(theirs) is not None}
    if kind in ("Unet", "UnetPlusPlus") and str(config["encoder_name"]).startswith("vgg"):
        options["center"] = True
    if decoder == "dpt" and options.get("readout") == "add":
        options["readout"] = "ignore"  # without a class token, which is refused above, there is nothing to add
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
    built.encoder_weights = "those of smp's model"  # which may be random ones
    num_classes = built.pairing.classes
    built.has_one_class_per_pixel = num_classes == 1 or not _is_sigmoid(_activation_of(source.segmentation_head), num_classes)
    if preprocessing is not None:
        built.preprocessing = preprocessing
    first = next(model.parameters())
    built.to(device=first.device, dtype=first.dtype)
    _compare(built, source)
    return built.train(model.training)


def _open(folder: Path) -> nn.Module:
    """Return the model that `save_pretrained` wrote, in eval mode, without asking the hub for the encoder's first weights."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.pop("_model_class")
        if kind not in RENAMED:
            raise ValueError(f"{kind} is none of smp's models")
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            model: nn.Module = getattr(smp, kind)(**{**config, "encoder_weights": None})
        model.load_state_dict(zoo.read_state_dict(folder))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as cause:
        raise zoo.errors.WeightsError(
            f"zoo.from_smp: {folder} holds no model that smp's save_pretrained wrote, or another version's: "
            f"{type(cause).__name__}: {cause}. A file of weights alone is for zoo.load_weights."
        ) from cause
    return model.eval()


def _refuse_what_no_pairing_has(kind: str, config: Config, source: Any) -> None:
    norm = config.get("decoder_use_norm", "batchnorm")
    if norm not in ("batchnorm", True):
        raise zoo.errors.OptionError(f"zoo.from_smp: decoder_use_norm={norm!r} has no counterpart here; smp's default has.")
    if kind == "DPT" and source.encoder.has_prefix_tokens and config.get("decoder_readout") != "ignore":
        raise zoo.errors.OptionError(
            "zoo.from_smp: this DPT reads out the encoder's class token (decoder_readout "
            f"{config.get('decoder_readout')!r}), and an encoder here gives maps alone. One made with decoder_readout='ignore' "
            "can be taken over."
        )
    left_out = []
    if config.get("activation") not in (None, "identity"):
        left_out.append(f"the activation {config['activation']!r} (zoo's models return logits)")
    if source.classification_head is not None:
        left_out.append("the auxiliary classifier")
    if left_out:
        warnings.warn(f"zoo.from_smp leaves out {' and '.join(left_out)}.", stacklevel=3)


def _encoder_of(config: Config, source: Any) -> tuple[str, int | None]:
    """Return the encoder's id here, and how many of its strides smp uses; None for all."""
    if name := getattr(source.encoder, "name", None):  # timm's, through smp's universal or vision transformer's encoder
        encoder = f"timm:{name}"
        if type(source.encoder).__name__ == "TimmViTEncoder":
            return encoder, None
    elif config["encoder_name"] in index():
        encoder = f"smp:{config['encoder_name']}"
    else:
        raise zoo.errors.OptionError(f"zoo.from_smp: the encoder {config['encoder_name']!r} is none of smp's own, nor timm's.")
    used = sum(width > 0 for width in source.encoder.out_channels[1 : config["encoder_depth"] + 1])
    strides = {entry.level for entry in zoo.negotiate(encoder, "smp:unet").pyramid}
    return encoder, used if used < len(strides) else None


def _classes_of(head: nn.Module) -> int:
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1].out_channels


def _activation_of(head: Any) -> nn.Module:
    last: nn.Module = getattr(head, "activation", None) or head[-1]
    return last


def _is_sigmoid(activation: nn.Module, num_classes: int) -> bool:
    """Whether an activation brings each class to 0 to 1 by itself: as a sigmoid does, whatever it is called, and no softmax."""
    logits = torch.linspace(-3, 3, num_classes * 16).view(1, num_classes, 4, 4)
    others = torch.cat([logits[:, :1] + 1, logits[:, 1:]], dim=1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that of a softmax without its dimension
            found = _in_eval(activation, lambda: activation(logits.clone()))
            changed = _in_eval(activation, lambda: activation(others.clone()))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    if not isinstance(found, Tensor) or found.shape != logits.shape:
        return False
    return float(found.min()) >= 0 and float(found.max()) <= 1 and torch.equal(found[:, 1:], changed[:, 1:])


def _load(built: zoo.SegmentationModel, source: nn.Module, named: str) -> None:
    """Copy the weights: every tensor of the pairing is found in smp's model, and every one of smp's goes somewhere."""
    state = {key: tensor for key, tensor in source.state_dict().items() if not key.startswith("classification_head.")}
    try:
        zoo.load_weights(built, state)
    except zoo.errors.WeightsError as cause:
        raise zoo.errors.WeightsError(
            f"zoo.from_smp: smp's {named} was made in a way that no pairing has, or changed afterwards. {cause} "
            "Nothing was taken over."
        ) from cause


def _compare(built: zoo.SegmentationModel, source: Any) -> None:
    """Run both on one image, and refuse a difference."""
    image, expected = _run(built, source)
    with torch.no_grad():
        found = _in_eval(built, lambda: built(image))
    scale = max(1.0, float(expected.abs().max()))
    error = float((found - expected).abs().max()) / scale if found.shape == expected.shape else float("inf")
    if not error <= TOLERANCE:
        raise zoo.errors.WeightsError(
            f"zoo.from_smp: {built.pairing} with the weights of smp's {type(source).__name__} gives another output (difference "
            f"{error:.2g} of the largest value, allowed {TOLERANCE:g}; shapes {tuple(found.shape)} and "
            f"{tuple(expected.shape)}). Nothing was taken over."
        )


def _run(built: zoo.SegmentationModel, source: Any) -> tuple[Tensor, Tensor]:
    """Return an image and smp's logits for it: of a size that both take, or of the one that timm made the encoder for."""
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
        f"zoo.from_smp: smp's {type(source).__name__} could not be run to compare with (tried images of {tried}): {error}"
    ) from error


def _logits_of(source: Any, image: Tensor) -> Tensor:
    """Return what smp's head gives before its activation."""
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
