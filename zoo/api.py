"""Build, negotiate and explain pairings: what users call with ids or modules. Torch is imported only where it is needed."""

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
"""An encoder's id, or any module."""


@show_options_of(Pairing)
def build(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Unpack[PairingOptions]) -> SegmentationModel:
    """Pair an encoder with a decoder; channels and strides are negotiated.

    Args:
        encoder: an encoder's id (`zoo list encoders`), or any `nn.Module` whose intermediate maps can be found: they are
            measured, and the model shares the module's parameters and keeps its modes. Or a whole pairing
            (`zoo.Pairing.from_yaml(path)`), without other arguments.
        decoder: a decoder's id (`zoo list decoders`).
        classes: the number of logits a pixel gets.
        in_channels: the number of channels the image has.
        weights: None for random ones, a name the encoder knows ("imagenet"), "hf-hub:OWNER/NAME", or a file's path.
        levels: how many of the encoder's strides to use, counted from the finest (smp's `encoder_depth`); of an encoder of a
            single stride, how many maps, for a decoder that takes several of one stride. None for all.
        image_size: (H, W) of the images: an encoder that is built for one size (position embeddings, windows) is built for
            this one; other encoders work at any size and ignore it. None if the size may vary.
        adapters: "auto" inserts the adapters that the negotiation finds, "none" inserts nothing.
        size_policy: for images whose size the encoder does not take: "pad" them (right and bottom, with zeros, and crop the
            logits), "resize" them (and the logits back), or "error"; "auto" pads where it can, and resizes images larger
            than the one size an encoder takes.
        aux_levels: how many of the decoder's coarser maps have their own head (deep supervision): in train mode the model
            returns a tuple, the logits and those of each such map, the finest first, all at the image's size.
        gradient_checkpointing: "encoder", "decoder" or "both": recompute activations for the gradient rather than store
            them, which takes time and saves memory in training; of the encoder as a whole, of a decoder step by step.
        encoder_options: keywords for the encoder.
        decoder_options: keywords for the decoder.

    Returns:
        A plain `nn.Module`: (N, in_channels, H, W) -> (N, classes, H, W), in train mode.

    Raises:
        ZooError: an unknown id or option, a plan that cannot be made, weights that do not fit, or a plugin that failed.

    Example:
        >>> model = zoo.build("resnet18", "unet-basic", classes=3)
    """
    from zoo.model.building import build_pairing

    return build_pairing(*_find_pairing(encoder, decoder, options))


@show_options_of(Pairing)
def negotiate(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Unpack[PairingOptions]) -> Plan:
    """Return the plan of a pairing, without building or importing either side (`zoo.negotiate`).

    Args:
        encoder: an encoder's id, or any `nn.Module`, which is then probed; or a whole pairing, without other arguments.
        decoder: a decoder's id.
        options: as for `zoo.build`: `levels`, `adapters`, `encoder_options`, `decoder_options`, ...

    Raises:
        ZooError: as `zoo.build` does before it builds.
    """
    return resolve(*_find_pairing(encoder, decoder, options)).plan


def channels(encoder: EncoderLike, **options: Any) -> list[int]:
    """Return the channels of every map the encoder can give, fine to coarse, as tutorials pass them to a decoder.

    Args:
        encoder: an encoder's id, or any `nn.Module`, which is then probed.
        options: the encoder's own options; for a module, `in_channels` and `image_size`.

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
    """Return, as text to print, which feature map goes where, what is put between, and why.

    Of a deployed model (`zoo.deploy`), given alone: what each pass did and saved, and what was tried to run it.

    Args:
        encoder: an encoder's id, or any `nn.Module`, which is then probed; or only a pairing or a deployed model.
        decoder: a decoder's id.
        options: as for `zoo.build`.

    Raises:
        OptionError: no decoder, and no deployed model.
        ZooError: as `zoo.build` does before it builds.
    """
    if decoder is None and not isinstance(encoder, Pairing):
        report = getattr(encoder, "report", None)  # a deployed model's, which this torch-free module cannot name
        if report is None:
            raise OptionError(
                "explain takes an encoder and a decoder, a pairing, or a model that zoo.deploy made; "
                f"found {type(encoder).__name__} alone."
            )
        return str(report)
    pairing, entry = _find_pairing(encoder, decoder, options)
    from zoo.common.grid import to_text
    from zoo.pairing.plan_parts import plan_parts

    return to_text(plan_parts(resolve(pairing, entry).plan, pairing), width=120).rstrip()


def _find_pairing(
    encoder: EncoderLike | Pairing, decoder: str | None, options: PairingOptions
) -> tuple[Pairing, Entry[EncoderSpec] | None]:
    """Return the requested pairing, and the entry of its encoder if that is a module, which is probed."""
    if isinstance(encoder, Pairing):
        if arguments := [*(["decoder"] if decoder is not None else []), *options]:
            changes = ", ".join(f"{name}=..." for name in arguments)
            raise OptionError(
                f"{encoder} is a whole pairing, but {', '.join(arguments)} was passed with it. To change it: "
                f"dataclasses.replace(pairing, {changes})."
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
        raise WeightsError(f"{name} is a module and brings its own weights; weights= must be None, found {pairing.weights!r}.")
    default_registry().decoder(decoder)  # an unknown decoder is reported before the probe, which takes seconds
    entry = _probe(encoder, pairing.in_channels, pairing.image_size)
    return replace(pairing, encoder=entry.full_id), entry


def _is_module(encoder: EncoderLike) -> bool:
    named = (getattr(encoder, name, None) for name in ("forward", "named_modules"))
    return not isinstance(encoder, str | type) and all(map(callable, named))


def _probe(module: EncoderLike, in_channels: int, image_size: tuple[int, int] | None) -> Entry[EncoderSpec]:
    from zoo.model.probing.probe import probe  # imports torch, as whoever holds a module has done

    spec = probe(cast("Module", module), in_channels=in_channels, image_size=image_size)
    return Entry(kind="encoder", plugin=MODULE, distribution="", version="", spec=spec)
