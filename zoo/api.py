"""Build, negotiate and explain pairings: what users call with ids or modules. Torch is imported by what needs it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from zoo.common.options import Options
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError, WeightsError
from zoo.pairing.pairing import Pairing
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


def build(
    encoder: EncoderLike | Pairing,
    decoder: str | None = None,
    *,
    classes: int = 1,
    in_channels: int = 3,
    weights: str | PathLike[str] | None = None,
    levels: int | None = None,
    image_size: tuple[int, int] | None = None,
    adapters: str = "auto",
    size_policy: str = "auto",
    aux_levels: int = 0,
    gradient_checkpointing: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    decoder_options: Mapping[str, Any] | None = None,
) -> SegmentationModel:
    """Pair an encoder with a decoder; channels and strides are negotiated.

    Args:
        encoder: an encoder's id (`zoo list encoders`), or any `nn.Module` whose intermediate maps can be found: they are
            measured, and the model shares the module's parameters and keeps its modes. Or a whole pairing
            (`zoo.Pairing.from_yaml(path)`), and nothing beside it.
        decoder: a decoder's id (`zoo list decoders`).
        classes: the number of logits a pixel gets.
        in_channels: the number of channels the image has.
        weights: None for random ones, a name the encoder knows ("imagenet"), "hf-hub:OWNER/NAME", or a file's path.
        levels: how many of the encoder's strides to use, counted from the finest; of an encoder of a single stride, how many
            maps, for a decoder that takes several of one stride. None for all.
        image_size: (H, W) that the model will see: an encoder that is made for one size is made for it (position
            embeddings, windows); the others work at any size, and it changes nothing. None where it may vary.
        adapters: "auto" inserts what the negotiation finds, "none" refuses to insert anything.
        size_policy: for images whose size the encoder cannot take as it is: "pad" them (and crop the logits), "resize" them
            (and the logits back), or "error"; "auto" pads where it can and resizes what is larger than the one size an
            encoder takes.
        aux_levels: how many of the decoder's coarser maps get a head of their own (deep supervision): in train mode the
            model returns a tuple, the logits and those of each such map, the finest first, all at the image's size.
        gradient_checkpointing: "encoder", "decoder" or "both": activations are computed again for the gradient in place of
            being kept, which takes time and saves memory in training; of the encoder as a whole, of a decoder step by step.
        encoder_options: keywords for the encoder.
        decoder_options: keywords for the decoder.

    Returns:
        A plain `nn.Module`: (N, in_channels, H, W) -> (N, classes, H, W), in train mode.

    Raises:
        ZooError: an unknown id or option, a plan that cannot be made, weights that do not fit, or a plugin that failed.

    Example:
        >>> model = zoo.build("resnet18", "unet-basic", classes=3)
    """
    options = {
        "classes": classes,
        "in_channels": in_channels,
        "weights": weights,
        "levels": levels,
        "image_size": image_size,
        "adapters": adapters,
        "size_policy": size_policy,
        "aux_levels": aux_levels,
        "gradient_checkpointing": gradient_checkpointing,
        "encoder_options": {} if encoder_options is None else encoder_options,
        "decoder_options": {} if decoder_options is None else decoder_options,
    }
    from zoo.model.building import build_pairing

    return build_pairing(*_asked(encoder, decoder, options))


def negotiate(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Any) -> Plan:
    """Return the plan of a pairing, without building or importing either side (`zoo.negotiate`).

    Args:
        encoder: an encoder's id, or any `nn.Module`, which is then probed; or a whole pairing, and nothing else.
        decoder: a decoder's id.
        options: as for `zoo.build`: `levels`, `adapters`, `encoder_options`, `decoder_options`, ...

    Raises:
        ZooError: as `zoo.build` does before it builds.
    """
    return resolve(*_asked(encoder, decoder, options)).plan


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
        entry = _probed(encoder, options.pop("in_channels", 3), options.pop("image_size", None))
    else:
        entry = default_registry().encoder(cast("str", encoder))
    return [feature_map.channels for feature_map in entry.pyramid(options)]


def explain(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Any) -> str:
    """Return, as text to print, which feature map goes where, what is put between, and why.

    Of a deployed model (`zoo.deploy`), given alone: what each pass did and saved, and what was tried to run it.

    Args:
        encoder: an encoder's id, or any `nn.Module`, which is then probed; or a pairing or a deployed model, alone.
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
    pairing, entry = _asked(encoder, decoder, options)
    from zoo.common.rendering import plain_text
    from zoo.pairing.plan_view import plan_view

    return plain_text(plan_view(resolve(pairing, entry).plan, pairing), width=120).rstrip()


def _asked(
    encoder: EncoderLike | Pairing, decoder: str | None, options: Mapping[str, Any]
) -> tuple[Pairing, Entry[EncoderSpec] | None]:
    """Return the pairing of what was asked for, and the encoder where it is a module; it is then probed."""
    if isinstance(encoder, Pairing):
        _check_alone(encoder, decoder, options)
        return encoder, None
    if decoder is None:
        raise OptionError(f"{encoder!r:.80} alone is no pairing: give a decoder's id as well (`zoo list decoders`).")
    if not _is_module(encoder):
        return _make_pairing(cast("str", encoder), decoder, options), None
    pairing = _make_pairing(f"{MODULE}:{type(encoder).__name__}", decoder, options)
    if pairing.weights is not None:
        name = type(encoder).__name__
        raise WeightsError(f"{name} is a module and brings its own weights; weights= must be None, found {pairing.weights!r}.")
    default_registry().decoder(decoder)  # what is wrong with the rest is told before the probe's seconds
    entry = _probed(encoder, pairing.in_channels, pairing.image_size)
    return replace(pairing, encoder=entry.full_id), entry


def _check_alone(pairing: Pairing, decoder: str | None, options: Mapping[str, Any]) -> None:
    """Refuse what is said beside a pairing, which says it all."""
    usual = _make_pairing(pairing.encoder, pairing.decoder, {}).as_dict()
    beside = [name for name, value in options.items() if usual.get(name, Options()) != value]
    if decoder is not None:
        beside.insert(0, "decoder")
    if beside:
        changes = ", ".join(f"{name}=..." for name in beside)
        raise OptionError(
            f"{pairing} is a whole pairing, and {', '.join(beside)} was given beside it. For another one: "
            f"dataclasses.replace(pairing, {changes})."
        )


def _is_module(encoder: EncoderLike) -> bool:
    named = (getattr(encoder, name, None) for name in ("forward", "named_modules"))
    return not isinstance(encoder, str | type) and all(map(callable, named))


def _probed(module: EncoderLike, in_channels: int, image_size: tuple[int, int] | None) -> Entry[EncoderSpec]:
    from zoo.model.probing.probe import probe  # imports torch, as whoever holds a module has done

    spec = probe(cast("Module", module), in_channels=in_channels, image_size=image_size)
    return Entry(kind="encoder", plugin=MODULE, distribution="", version="", spec=spec)


def _make_pairing(encoder: str, decoder: str, options: Mapping[str, Any]) -> Pairing:
    """Return the pairing, or say which of the keywords is none."""
    known = [name for name in Pairing.__dataclass_fields__ if name not in ("encoder", "decoder")]
    for name in options:
        if name not in known:
            raise OptionError(f"A pairing has no option {name!r}.{did_you_mean(name, known)} Options: {', '.join(known)}.")
    plain = {name: fspath(value) if isinstance(value, PathLike) else value for name, value in options.items()}
    return Pairing(encoder, decoder, **plain)
