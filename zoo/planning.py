"""From ids to a plan: the registry looks up both sides, the negotiation matches them. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from zoo import negotiation
from zoo.errors import OptionError, PluginError
from zoo.foreign_code import ForeignError, plugin_code
from zoo.hints import did_you_mean
from zoo.options import Options
from zoo.pairing import Pairing
from zoo.plan import Plan
from zoo.pyramid import Needs, Pyramid
from zoo.registry import Entry, default_registry
from zoo.sizes import ImageSizes
from zoo.specs import DecoderSpec, EncoderSpec, Option

__all__ = ["Resolved", "check_options", "needs_of", "output_strides_of", "pyramid_of", "resolve", "sizes_of"]

GIVEN = ("image_size", "in_channels", "maps", "weights")
"""What every encoder's factory is given, and no option can be named."""

_A = TypeVar("_A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A pairing whose ids are found and whose plan is made; nothing is built yet."""

    pairing: Pairing
    encoder: Entry[EncoderSpec]
    decoder: Entry[DecoderSpec]
    plan: Plan


def resolve(pairing: Pairing, encoder: Entry[EncoderSpec] | None = None, decoder: Entry[DecoderSpec] | None = None) -> Resolved:
    """Find both sides of a pairing and negotiate.

    Args:
        pairing: what was asked for.
        encoder: the encoder, where it is a module that no registry knows; None to look its id up.
        decoder: the decoder, likewise.

    Raises:
        UnknownIdError: or AmbiguousIdError, PluginError: an id cannot be resolved.
        OptionError: an option that a spec does not declare.
        NegotiationError: the two do not fit.
    """
    registry = default_registry()
    encoder = encoder or registry.encoder(pairing.encoder)
    decoder = decoder or registry.decoder(pairing.decoder)
    needs = needs_of(decoder, pairing.decoder_options)
    if needs.output_stride is None or "output_stride" in pairing.encoder_options:
        plan, note = _negotiated(encoder, decoder, pairing, pairing.encoder_options, needs), ""
    else:
        plan, note = _dilated_if_wanted(encoder, decoder, pairing, needs, needs.output_stride)
    notes = (note, _output_note(decoder, plan))
    return Resolved(
        pairing=pairing,
        encoder=encoder,
        decoder=decoder,
        plan=replace(plan, notes=tuple(note for note in notes if note)),
    )


def _negotiated(
    encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], pairing: Pairing, options: Mapping[str, Any], needs: Needs
) -> Plan:
    return negotiation.negotiate(
        pyramid_of(encoder, options),
        needs,
        encoder=encoder.id,
        decoder=decoder.id,
        levels=pairing.levels,
        adapters=pairing.adapters,
        sizes=sizes_of(encoder, options),
        image_size=pairing.image_size,
        size_policy=pairing.size_policy,
        in_channels=pairing.in_channels,
    )


def _dilated_if_wanted(
    encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], pairing: Pairing, needs: Needs, wanted: int
) -> tuple[Plan, str]:
    """Hand the output stride that a decoder wants to an encoder that can dilate; return the plan and what was decided."""
    wish = f"{decoder.id} wants output stride {wanted}"
    able = output_strides_of(encoder, pairing.encoder_options)
    usual = pyramid_of(encoder, pairing.encoder_options)
    if wanted in able and pairing.adapters == "auto":
        dilation = {"output_stride": wanted}
        plan = _negotiated(encoder, decoder, pairing, {**pairing.encoder_options, **dilation}, needs)
        if _is_dilated(plan, usual):
            note = f"{wish}; {encoder.id} is built with output_stride={wanted} (dilated)."
            return replace(plan, encoder_options=Options(dilation)), note
    plan = _negotiated(encoder, decoder, pairing, pairing.encoder_options, needs)
    if all(2**entry.level <= wanted for entry in usual):
        return plan, ""
    if wanted in able:
        forbidden = f"{wish}; {encoder.id} could dilate to it, and adapters='none' forbids it: no coarser map is used."
        return plan, forbidden if pairing.adapters == "none" else ""
    made = any(2**route.source.level > wanted for route in plan.routes)
    rest = "what it gets is made from a coarser map" if made else "none of its coarser maps is used"
    return plan, f"{wish}; {encoder.id} cannot dilate to it: {rest}."


def _is_dilated(plan: Plan, usual: Pyramid) -> bool:
    """Whether a map in use is finer than it would be without dilation."""
    strides = {entry.name: entry.stride for entry in usual}
    return any(route.source.stride < strides.get(route.source.name, 0) for route in plan.routes)


def _output_note(decoder: Entry[DecoderSpec], plan: Plan) -> str:
    """Say how the output comes to the image's resolution."""
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


def check_options(owner: str, given: Mapping[str, Any], declared: Sequence[Option] | None) -> None:
    """Refuse an option that a spec does not declare, or a value that is not among the declared choices.

    Where a spec declares no options, its factory is asked when it is built.
    """
    if declared is None:
        return
    options = {option.name: option for option in declared}
    for name, value in given.items():
        if name not in options:
            allowed = ", ".join(options) or "none"
            raise OptionError(f"{owner} has no option {name!r}.{did_you_mean(name, list(options))} Its options: {allowed}.")
        if (choices := options[name].choices) and value not in choices:
            raise OptionError(f"{owner}: {name} is one of {', '.join(map(repr, choices))}; found {value!r}.")


def pyramid_of(encoder: Entry[EncoderSpec], options: Mapping[str, Any]) -> Pyramid:
    """Return every map the encoder gives under these options."""
    if given := sorted({*GIVEN, *encoder.spec.constants}.intersection(options)):
        keyword = f"; zoo.build has a keyword {given[0]!r} of its own" if given[0] in GIVEN else ""
        raise OptionError(f"{given[0]!r} is no option of {encoder.id}: zoo gives it itself{keyword}.")
    return _answered(encoder, "pyramid function", encoder.spec.pyramid_for, options)


def needs_of(decoder: Entry[DecoderSpec], options: Mapping[str, Any]) -> Needs:
    """Return what the decoder needs under these options."""
    return _answered(decoder, "needs function", decoder.spec.needs_for, options)


def sizes_of(encoder: Entry[EncoderSpec], options: Mapping[str, Any]) -> ImageSizes:
    """Return the image sizes that the encoder takes under these options."""
    return _answered(encoder, "sizes function", encoder.spec.sizes_for, options)


def output_strides_of(encoder: Entry[EncoderSpec], options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the output strides that the encoder can be dilated to under these options."""
    return _answered(encoder, "output_strides function", encoder.spec.output_strides_for, options)


def _answered(entry: Entry[Any], what: str, function: Callable[[dict[str, Any]], _A], options: Mapping[str, Any]) -> _A:
    """Ask a spec; what the plugin's own function raises is the plugin's error."""
    check_options(entry.id, options, entry.spec.options)
    try:
        with plugin_code(f"The {what} of {entry.full_id}", f"Leave {entry.full_id} out to do without it."):
            return function(dict(options))
    except ForeignError as failure:
        raise PluginError(
            f"The {what} of {entry.full_id} raised {failure} (options {dict(options)!r}). "
            "This is the plugin's error, not the negotiation's."
        ) from failure.__cause__
