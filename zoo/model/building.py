"""Build the model of a pairing with the factories of its encoder and its decoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from zoo.common.foreign_code import plugin_code
from zoo.errors import OptionError, PluginError
from zoo.model.model import SegmentationModel
from zoo.pairing.pairing import Pairing
from zoo.pairing.resolve import Resolved, resolve
from zoo.registry.licenses import licenses_of
from zoo.registry.pyramid import FeatureMap
from zoo.registry.registry import Entry
from zoo.registry.specs import DecoderSpec, EncoderSpec, import_factory

__all__ = ["build_encoder", "build_pairing", "decoder_keywords"]


def build_pairing(
    pairing: Pairing, encoder: Entry[EncoderSpec] | None = None, decoder: Entry[DecoderSpec] | None = None
) -> SegmentationModel:
    """Build the model of a pairing. If the registry does not contain the encoder or the decoder, pass its entry.

    This function raises the same errors as `zoo.build`.
    """
    resolved = resolve(pairing, encoder, decoder)
    encoder_module = build_encoder(resolved)
    decoder_module = _build_decoder(resolved)
    head = _build_head(decoder_module, resolved)
    aux_heads = _build_aux_heads(decoder_module, resolved)
    if resolved.pairing.gradient_checkpointing in ("decoder", "both"):
        _checkpoint_steps(decoder_module, resolved)
    licenses = licenses_of(resolved.encoder, resolved.decoder, resolved.pairing.weights)
    model = SegmentationModel(encoder_module, decoder_module, head, resolved.plan, resolved.pairing, licenses, aux_heads)
    _match_dtype(model, encoder_module)
    return model


def _match_dtype(model: SegmentationModel, encoder: nn.Module) -> None:
    """Convert the other parts of a model to the encoder's dtype, since a module passed as encoder may be in bfloat16."""
    dtype = next((parameter.dtype for parameter in encoder.parameters() if parameter.is_floating_point()), None)
    if dtype not in (None, torch.get_default_dtype()):
        for child in model.children():
            if child is not encoder:
                child.to(dtype)


def build_encoder(resolved: Resolved) -> nn.Module:
    """Build the encoder of a pairing, for the maps that its plan uses."""
    pairing = resolved.pairing
    given = {"maps": resolved.plan.maps, "in_channels": pairing.in_channels, "weights": pairing.weights}
    if resolved.plan.sizes.image_size is not None:
        given["image_size"] = resolved.plan.sizes.image_size
    return _call_factory(resolved.encoder, (), given, {**pairing.encoder_options, **resolved.plan.encoder_options})


def _build_decoder(resolved: Resolved) -> nn.Module:
    given = decoder_keywords(resolved.decoder.spec, resolved.pairing.classes)
    decoder = _call_factory(resolved.decoder, (resolved.plan.pyramid,), given, resolved.pairing.decoder_options)
    for name, kind in () if resolved.decoder.spec.makes_logits else (("out_channels", int), ("out_stride", int | float)):
        value = getattr(decoder, name, None)
        if not isinstance(value, kind) or isinstance(value, bool) or value < 1:
            raise PluginError(
                f"The decoder {resolved.decoder.id} must set self.{name} in its __init__ to a number; found {value!r}. "
                "out_channels must be an int of at least 1, and out_stride a number of at least 1. zoo reads both to build the "
                "model."
            )
    return decoder


def decoder_keywords(spec: DecoderSpec, classes: int) -> dict[str, Any]:
    """Return the keywords that zoo itself passes to a decoder's factory, besides `spec.constants` and the user's options."""
    return {"classes": classes} if spec.makes_logits else {}


def _build_head(decoder: nn.Module, resolved: Resolved) -> nn.Module:
    classes = resolved.pairing.classes
    make_head = getattr(decoder, "make_head", None)
    if resolved.decoder.spec.makes_logits:
        if make_head is not None:
            raise PluginError(
                f"The decoder {resolved.decoder.id} declares makes_logits and also has make_head. Remove one of the two."
            )
        return nn.Identity()
    if make_head is None:
        return _make_head(int(decoder.out_channels), classes)  # type: ignore[arg-type]
    owner = f"make_head of {resolved.decoder.full_id}"
    with plugin_code(owner, avoidance=f"Leave out {resolved.decoder.full_id} to avoid this."):
        head = make_head(classes)
    if not isinstance(head, nn.Module):
        raise PluginError(f"make_head of the decoder {resolved.decoder.id} must return an nn.Module; found {head!r}.")
    _check_materialized(head, f"make_head of the decoder {resolved.decoder.id}")
    return head


def _build_aux_heads(decoder: nn.Module, resolved: Resolved) -> list[nn.Module]:
    wanted, classes = resolved.pairing.aux_levels, resolved.pairing.classes
    if not wanted:
        return []
    widths = getattr(decoder, "aux_channels", ())
    if not isinstance(widths, tuple | list) or not all(type(width) is int and width >= 1 for width in widths):
        raise PluginError(
            f"The `aux_channels` of the decoder {resolved.decoder.id} must be a tuple of integers of at least 1; found "
            f"{widths!r}. Set it to the channels of the decoder's coarser maps, finest first."
        )
    if widths and not hasattr(decoder, "forward_aux"):
        raise PluginError(
            f"The decoder {resolved.decoder.id} has `aux_channels` but no `forward_aux(features)`. Add this method, which "
            "returns the decoder's map and a list of its coarser maps, or remove `aux_channels`."
        )
    if len(widths) < wanted:
        has = f"has {len(widths)} coarser maps here" if widths else "has no coarser maps (`aux_channels` and `forward_aux`)"
        raise OptionError(f"aux_levels={wanted}: the decoder {resolved.decoder.id} {has}. Reduce aux_levels.")
    return [_make_head(width, classes) for width in widths[:wanted]]


def _make_head(in_channels: int, classes: int) -> nn.Conv2d:
    """Return a 1x1 convolution with Xavier weights (Glorot and Bengio 2010) and biases of zero."""
    head = nn.Conv2d(in_channels, classes, kernel_size=1)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


def _checkpoint_steps(decoder: nn.Module, resolved: Resolved) -> None:
    """Make a decoder checkpoint each of its stages separately.

    If the decoder were checkpointed as a whole, all its activations would be recomputed and stored at once when the backward
    pass begins.
    """
    switch = getattr(decoder, "set_grad_checkpointing", None)
    if switch is None:
        raise OptionError(
            f"gradient_checkpointing={resolved.pairing.gradient_checkpointing!r}: the decoder {resolved.decoder.id} does not "
            "support it, since it has no `set_grad_checkpointing`. Pass gradient_checkpointing='encoder'."
        )
    switch(True)


def _call_factory(
    entry: Entry[Any],
    arguments: tuple[Any, ...],
    given: dict[str, Any],
    options: Mapping[str, Any],
) -> nn.Module:
    """Import and call a plugin's factory. If the factory raises an exception, raise a PluginError."""
    avoidance = f"Leave out {entry.full_id} to avoid this."
    loading = "" if given.get("weights") is None else "Downloading and reading weights can take this long. "
    with plugin_code(f"Importing the factory {entry.spec.factory!r} of {entry.full_id}", avoidance=avoidance):
        factory = import_factory(entry.spec.factory)
    parameters = _read_parameters(factory, len(arguments))
    keywords = {**given, **entry.spec.constants}
    _check_accepted(entry, parameters, keywords, options)
    try:
        with plugin_code(
            f"The factory of {entry.full_id}", avoidance=loading + avoidance, details=f" (options {dict(options)!r})"
        ):
            module = factory(*arguments, **keywords, **options)
    except PluginError as failure:
        if entry.kind == "encoder" or FeatureMap.__name__ not in str(failure.__cause__):
            raise
        raise PluginError(
            f"{failure} The first argument of a decoder is a pyramid, whose entries have `channels` and `stride`. If the class "
            "takes a list of channels, register zoo.from_channels(CLASS)."
        ) from failure.__cause__
    if not isinstance(module, nn.Module):
        raise PluginError(f"The factory of {entry.full_id} must return a torch.nn.Module; found {module!r}.")
    _check_materialized(module, f"The factory of {entry.full_id}")
    return module


def _check_materialized(module: nn.Module, owner: str) -> None:
    """Raise a PluginError for lazy layers, which cannot be counted, initialized, saved or trained before the first run."""
    lazy = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise PluginError(
            f"{owner} created lazy layers, which have no shape before the first run: {', '.join(lazy[:5])}. Create the layers "
            "with explicit sizes: a decoder finds the numbers of channels in its pyramid or channel list."
        )


def _read_parameters(factory: Any, num_arguments: int) -> dict[str, inspect.Parameter] | None:
    """Return a factory's parameters without the first `num_arguments`, which zoo passes by position.

    Return None if the signature cannot be read.
    """
    try:
        return dict(list(inspect.signature(factory).parameters.items())[num_arguments:])
    except (TypeError, ValueError):
        return None


def _check_accepted(
    entry: Entry[Any], named: dict[str, inspect.Parameter] | None, keywords: dict[str, Any], options: Mapping[str, Any]
) -> None:
    """Raise an OptionError for an option that the factory does not accept, before the factory is called."""
    for name in options:
        if name in keywords:
            raise OptionError(f"{name!r} is not an option of {entry.id}; zoo passes it itself.")
    if named is None or any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values()):
        return
    accepted = [name for name in named if name not in keywords]
    for name in options:
        if name not in accepted:
            raise OptionError(f"{entry.id} has no option {name!r}. Its options: {', '.join(accepted) or 'none'}.")
