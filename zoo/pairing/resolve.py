"""Turn ids into a plan: look up the encoder and the decoder in the registry, and negotiate. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zoo.common.options import Options
from zoo.pairing import negotiation
from zoo.pairing.pairing import Pairing
from zoo.pairing.plan import Plan
from zoo.registry.pyramid import Needs, Pyramid
from zoo.registry.registry import Entry, default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["Resolved", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A pairing with its encoder and decoder from the registry, and its plan. The model is not built yet."""

    pairing: Pairing
    encoder: Entry[EncoderSpec]
    decoder: Entry[DecoderSpec]
    plan: Plan


def resolve(pairing: Pairing, encoder: Entry[EncoderSpec] | None = None, decoder: Entry[DecoderSpec] | None = None) -> Resolved:
    """Look up the encoder and the decoder of a pairing, and make its plan.

    Args:
        pairing: the ids and options.
        encoder: the entry of the encoder, if it is a module and so not in the registry; None to look up the id.
        decoder: the entry of the decoder, if it is not in the registry; None to look up the id.

    Raises:
        UnknownIdError: no encoder or no decoder has the requested id.
        AmbiguousIdError: several plugins have the requested bare name.
        PluginError: a plugin could not be loaded, or its code raised an exception.
        OptionError: an encoder or a decoder does not have an option, or the value of an option is not valid.
        NegotiationError: the encoder's maps do not meet the decoder's needs.
    """
    registry = default_registry()
    encoder = encoder or registry.encoder(pairing.encoder)
    decoder = decoder or registry.decoder(pairing.decoder)
    needs = decoder.needs(pairing.decoder_options)
    if needs.output_stride is None or "output_stride" in pairing.encoder_options:
        plan, note = _negotiate(encoder, decoder, pairing, pairing.encoder_options, needs), ""
    else:
        plan, note = _negotiate_dilated(encoder, decoder, pairing, needs, needs.output_stride)
    notes = (note, _output_note(decoder, plan))
    return Resolved(
        pairing=pairing,
        encoder=encoder,
        decoder=decoder,
        plan=replace(plan, notes=tuple(note for note in notes if note)),
    )


def _negotiate(
    encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], pairing: Pairing, options: Mapping[str, Any], needs: Needs
) -> Plan:
    return negotiation.negotiate(
        encoder.pyramid(options),
        needs,
        encoder=encoder.id,
        decoder=decoder.id,
        levels=pairing.levels,
        adapters=pairing.adapters,
        sizes=encoder.sizes(options),
        image_size=pairing.image_size,
        size_policy=pairing.size_policy,
        in_channels=pairing.in_channels,
    )


def _negotiate_dilated(
    encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], pairing: Pairing, needs: Needs, wanted: int
) -> tuple[Plan, str]:
    """Return a plan, and a note about the output stride that the decoder wants; "" if there is nothing to say.

    If possible, the encoder is built with dilated convolutions, so that it has this output stride.
    """
    wish = f"{decoder.id} wants output stride {wanted}"
    able = encoder.output_strides(pairing.encoder_options)
    usual = encoder.pyramid(pairing.encoder_options)
    if wanted in able and pairing.adapters == "auto":
        dilation = {"output_stride": wanted}
        plan = _negotiate(encoder, decoder, pairing, {**pairing.encoder_options, **dilation}, needs)
        if _is_dilated(plan, usual):
            note = f"{wish}; {encoder.id} is built with output_stride={wanted} (dilated)."
            return replace(plan, encoder_options=Options(dilation)), note
    plan = _negotiate(encoder, decoder, pairing, pairing.encoder_options, needs)
    if all(2**entry.level <= wanted for entry in usual):
        return plan, ""
    if wanted in able:
        forbidden = f"{wish}; {encoder.id} could dilate to it, but adapters='none' forbids it: no coarser map is used."
        return plan, forbidden if pairing.adapters == "none" else ""
    made = any(2**route.source.level > wanted for route in plan.routes)
    rest = "its input is made from a coarser map" if made else "none of its coarser maps is used"
    return plan, f"{wish}; {encoder.id} cannot dilate to it: {rest}."


def _is_dilated(plan: Plan, usual: Pyramid) -> bool:
    """Return whether the plan uses a map whose stride is finer than it would be without dilation."""
    strides = {entry.name: entry.stride for entry in usual}
    return any(route.source.stride < strides.get(route.source.name, 0) for route in plan.routes)


def _output_note(decoder: Entry[DecoderSpec], plan: Plan) -> str:
    """Return a note that says how the output reaches the image's resolution; "" if the decoder declares no `out_stride`."""
    finest, stride = plan.pyramid[0], decoder.spec.out_stride
    if stride is None:
        return ""
    if stride > 1:
        return f"Output: the logits come at stride {stride} and are resized (bilinear) to the image."
    left = finest.stride / 2**finest.level
    ending = "the logits are not interpolated" if left == 1 else f"the logits are then resized (bilinear) by {left:.3g}"
    if not decoder.spec.upsamples_learned:
        return f"Output: {decoder.id} ends at stride 1 by itself."
    if finest.level == 0:
        return f"Output: {decoder.id} ends at the finest map (stride {finest.stride:g}); {ending}."
    steps = ", ".join(f"{finest.stride / 2**step:g}" for step in range(1, finest.level + 1))
    return (
        f"Output: from the finest map (stride {finest.stride:g}) {decoder.id} takes {finest.level} learned upsampling "
        f"step{'s' if finest.level > 1 else ''} more, to stride {steps}; {ending}."
    )
