"""Build models from pairings, and make and explain their plans. Only the functions that need torch import it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast

from zoo.common.signatures import show_options_of
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError, WeightsError
from zoo.pairing.pairing import Pairing
from zoo.pairing.pairing_fields import OPTION_NAMES, PairingOptions
from zoo.pairing.plan import Plan
from zoo.pairing.resolve import resolve
from zoo.registry.registry import MODULE, Entry, default_registry
from zoo.registry.specs import EncoderSpec

if TYPE_CHECKING:
    from torch.nn import Module

    from zoo.model.model import SegmentationModel

__all__ = ["build", "channels", "explain", "negotiate"]

EncoderLike: TypeAlias = "str | Module"
"""An encoder's id, or any `nn.Module`."""


@show_options_of(Pairing)
def build(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Unpack[PairingOptions]) -> SegmentationModel:
    """Build a segmentation model from an encoder and a decoder. zoo matches their channels and strides.

    Args:
        encoder: an encoder's id (`zoo list encoders`), or any `nn.Module` whose intermediate maps can be found. zoo runs
            such a module to measure the channels and strides of its maps. The model shares the module's parameters. Building
            the model leaves each part of the module in its present mode (train or eval). Instead of an encoder and a decoder,
            you can pass a whole pairing (`zoo.Pairing.from_yaml(path)`), without other arguments.
        decoder: a decoder's id (`zoo list decoders`).
        classes: the number of classes, which is the number of logits per pixel.
        in_channels: the number of channels of the image.
        weights: the encoder's weights: None for random weights, a name that the encoder knows ("imagenet"),
            "hf-hub:OWNER/NAME", or a file's path.
        levels: how many of the encoder's strides to use, counted from the finest (smp's `encoder_depth`); None for all. But if
            the encoder has a single stride and the decoder takes several maps of one stride, this is the number of maps to use.
        image_size: (H, W) of the images, or None if the size may vary. An encoder whose layers depend on the image size
            (position embeddings, windows) is built for this size. Other encoders are the same for every `image_size`.
        adapters: "auto" inserts the adapters that the decoder needs. "none" inserts no adapters.
        size_policy: what to do with images of a size that the encoder does not accept. "pad" pads them with zeros (right and
            bottom) and crops the logits. "resize" resizes them, and resizes the logits back. "error" refuses them. "auto" pads
            them, but if the encoder accepts only one size, it resizes larger images.
        aux_levels: how many of the decoder's maps that are coarser than its output get their own head (deep supervision). In
            train mode, the model then returns a tuple: the logits, and the logits of each of these maps, finest first. All have
            the image's size.
        gradient_checkpointing: "encoder", "decoder" or "both" to recompute the activations of these parts in the backward pass
            instead of storing them; None to store all activations. Recomputing saves memory in training, but takes time. The
            encoder is recomputed as a whole, and the decoder stage by stage.
        encoder_options: keyword arguments for the encoder.
        decoder_options: keyword arguments for the decoder.

    Returns:
        An `nn.Module` in train mode: (N, in_channels, H, W) -> (N, classes, H, W).

    Raises:
        ZooError: an id or an option is unknown, no plan can be made, the weights do not fit, or a plugin failed.

    Example:
        >>> model = zoo.build("resnet18", "unet-basic", classes=3)
    """
    from zoo.model.building import build_pairing

    return build_pairing(*find_pairing(encoder, decoder, options))


@show_options_of(Pairing)
def negotiate(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Unpack[PairingOptions]) -> Plan:
    """Return the plan of a pairing. Neither the encoder nor the decoder is built or imported.

    Args:
        encoder: an encoder's id, or any `nn.Module` (whose maps are measured). Instead of an encoder and a decoder, you can
            pass a whole pairing, without other arguments.
        decoder: a decoder's id.
        options: the options of `zoo.build`: `levels`, `adapters`, `encoder_options`, `decoder_options`, ...

    Raises:
        ZooError: an id or an option is unknown, no plan can be made, or a plugin failed.
    """
    return resolve(*find_pairing(encoder, decoder, options)).plan


def channels(encoder: EncoderLike, **options: Any) -> list[int]:
    """Return the numbers of channels of all maps that an encoder can return, fine to coarse.

    Decoders from outside of zoo often take such a list.

    Args:
        encoder: an encoder's id, or any `nn.Module` (whose maps are measured).
        options: the options of the encoder. For a module, these are `in_channels` and `image_size`.

    Raises:
        ZooError: the id or an option is unknown, a plugin failed, or the maps of the module cannot be measured.

    Example:
        >>> zoo.channels("resnet18")
        [64, 64, 64, 128, 256, 512]
    """
    if _is_module(encoder):
        entry = _probe(encoder, options.pop("in_channels", 3), options.pop("image_size", None))
    else:
        entry = default_registry().encoder(cast("str", encoder))
    return [feature_map.channels for feature_map in entry.pyramid(options)]


@show_options_of(Pairing)
def explain(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Unpack[PairingOptions]) -> str:
    """Return the plan of a pairing as text: which feature map goes to which decoder input, through which adapters, and why.

    For a deployed model (`zoo.deploy`), return its report instead: what each optimization of the graph did, and which runtimes
    and precisions were tried.

    Args:
        encoder: an encoder's id, or any `nn.Module` (whose maps are measured). Instead of an encoder and a decoder, you can
            pass a whole pairing or a deployed model, without other arguments.
        decoder: a decoder's id.
        options: the options of `zoo.build`.

    Raises:
        OptionError: the decoder is missing, and `encoder` is neither a pairing nor a deployed model.
        ZooError: an id or an option is unknown, no plan can be made, or a plugin failed.
    """
    if decoder is None and not isinstance(encoder, Pairing):
        report = getattr(encoder, "report", None)  # a deployed model has one; an isinstance check would import torch
        if report is None:
            raise OptionError(
                "explain takes an encoder and a decoder, a pairing, or a model that zoo.deploy made; "
                f"found {type(encoder).__name__} alone."
            )
        return str(report)
    pairing, entry = find_pairing(encoder, decoder, options)
    from zoo.common.grid import to_text
    from zoo.pairing.plan_parts import plan_parts

    return to_text(plan_parts(resolve(pairing, entry).plan, pairing), width=120).rstrip()


def find_pairing(
    encoder: EncoderLike | Pairing, decoder: str | None, options: PairingOptions
) -> tuple[Pairing, Entry[EncoderSpec] | None]:
    """Return the requested pairing, and an entry for its encoder if the encoder is a module. Otherwise, the entry is None.

    To make the entry, the module's maps are measured, which takes seconds.
    """
    if isinstance(encoder, Pairing):
        if arguments := [*(["decoder"] if decoder is not None else []), *options]:
            changes = ", ".join(f"{name}=..." for name in arguments)
            raise OptionError(
                f"{encoder} is a whole pairing, but other arguments ({', '.join(arguments)}) were passed with it. To "
                f"change the pairing: dataclasses.replace(pairing, {changes})."
            )
        return encoder, None
    if decoder is None:
        raise OptionError(f"{encoder!r:.80} alone is not a pairing: pass a decoder's id as well (`zoo list decoders`).")
    for name in options:
        if name not in OPTION_NAMES:
            raise OptionError(
                f"A pairing has no option {name!r}.{did_you_mean(name, OPTION_NAMES)} Options: {', '.join(OPTION_NAMES)}."
            )
    keywords: dict[str, Any] = {**options}
    if not _is_module(encoder):
        return Pairing(cast("str", encoder), decoder, **keywords), None
    pairing = Pairing(f"{MODULE}:{type(encoder).__name__}", decoder, **keywords)
    if pairing.weights is not None:
        name = type(encoder).__name__
        raise WeightsError(f"{name} is a module and has its own weights; weights= must be None, found {pairing.weights!r}.")
    default_registry().decoder(decoder)  # an unknown decoder is reported before the probe, which takes seconds
    entry = _probe(encoder, pairing.in_channels, pairing.image_size)
    return replace(pairing, encoder=entry.full_id), entry


def _is_module(encoder: EncoderLike) -> bool:
    named = (getattr(encoder, name, None) for name in ("forward", "named_modules"))
    return not isinstance(encoder, str | type) and all(map(callable, named))


def _probe(module: EncoderLike, in_channels: int, image_size: tuple[int, int] | None) -> Entry[EncoderSpec]:
    from zoo.model.probing.probe import probe  # imports torch, as the caller must have done to create the module

    spec = probe(cast("Module", module), in_channels=in_channels, image_size=image_size)
    return Entry(kind="encoder", plugin=MODULE, distribution="", version="", spec=spec)
