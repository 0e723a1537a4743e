"""From ids to a plan: the registry looks up both sides, the negotiation matches them. Torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, TypeVar

from zoo import negotiation
from zoo.errors import OptionError, PluginError, ZooError
from zoo.negotiation import Plan
from zoo.pairing import Pairing
from zoo.pyramid import Needs, Pyramid
from zoo.registry import Entry, default_registry
from zoo.specs import DecoderSpec, EncoderSpec, Option

__all__ = ["Resolved", "channels", "negotiate", "resolve"]

_A = TypeVar("_A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A pairing whose ids are found and whose plan is made; nothing is built yet."""

    pairing: Pairing
    encoder: Entry[EncoderSpec]
    decoder: Entry[DecoderSpec]
    plan: Plan


def resolve(pairing: Pairing) -> Resolved:
    """Find both sides of a pairing and negotiate.

    Raises:
        UnknownIdError: or AmbiguousIdError, PluginError: an id cannot be resolved.
        OptionError: an option that a spec does not declare.
        NegotiationError: the two do not fit.
    """
    registry = default_registry()
    encoder = registry.encoder(pairing.encoder)
    decoder = registry.decoder(pairing.decoder)
    pyramid = pyramid_of(encoder, pairing.encoder_options)
    needs = needs_of(decoder, pairing.decoder_options)
    plan = negotiation.negotiate(
        pyramid, needs, encoder=encoder.id, decoder=decoder.id, levels=pairing.levels, adapters=pairing.adapters
    )
    return Resolved(pairing=pairing, encoder=encoder, decoder=decoder, plan=plan)


def negotiate(encoder: str, decoder: str, **options: Any) -> Plan:
    """Return the plan of a pairing, without building or importing either side (`zoo.negotiate`).

    Args:
        encoder: an encoder's id.
        decoder: a decoder's id.
        options: as for `zoo.build`: `levels`, `adapters`, `encoder_options`, `decoder_options`, ...

    Raises:
        ZooError: as `zoo.build` does before it builds.
    """
    return resolve(make_pairing(encoder, decoder, options)).plan


def channels(encoder: str, **options: Any) -> list[int]:
    """Return the channels of every map the encoder can give, fine to coarse, as tutorials pass them to a decoder.

    Args:
        encoder: an encoder's id.
        options: the encoder's own options.

    Example:
        >>> zoo.channels("resnet18")
        [64, 64, 64, 128, 256, 512]
    """
    entry = default_registry().encoder(encoder)
    return [feature_map.channels for feature_map in pyramid_of(entry, options)]


def make_pairing(encoder: str, decoder: str, options: Mapping[str, Any]) -> Pairing:
    """Return the pairing, or say which of the keywords is none."""
    known = [name for name in Pairing.__dataclass_fields__ if name not in ("encoder", "decoder")]
    for name in options:
        if name not in known:
            raise OptionError(f"A pairing has no option {name!r}.{_closest(name, known)} Options: {', '.join(known)}.")
    plain = {name: fspath(value) if isinstance(value, PathLike) else value for name, value in options.items()}
    return Pairing(encoder, decoder, **plain)


def check_options(owner: str, given: Mapping[str, Any], declared: Sequence[Option] | None) -> None:
    """Refuse an option that a spec does not declare; where it declares nothing, its factory is asked when built."""
    if declared is None:
        return
    names = [option.name for option in declared]
    for name in given:
        if name not in names:
            allowed = ", ".join(names) or "none"
            raise OptionError(f"{owner} has no option {name!r}.{_closest(name, names)} Its options: {allowed}.")


def pyramid_of(encoder: Entry[EncoderSpec], options: Mapping[str, Any]) -> Pyramid:
    """Return every map the encoder gives under these options."""
    return _answered(encoder, "pyramid function", encoder.spec.pyramid_for, options)


def needs_of(decoder: Entry[DecoderSpec], options: Mapping[str, Any]) -> Needs:
    """Return what the decoder needs under these options."""
    return _answered(decoder, "needs function", decoder.spec.needs_for, options)


def _answered(entry: Entry[Any], what: str, function: Callable[[dict[str, Any]], _A], options: Mapping[str, Any]) -> _A:
    """Ask a spec; what the plugin's own function raises is the plugin's error."""
    check_options(entry.id, options, entry.spec.options)
    try:
        return function(dict(options))
    except ZooError:
        raise
    except Exception as cause:
        raise PluginError(
            f"The {what} of {entry.full_id} raised {type(cause).__name__}: {cause} (options {dict(options)!r}). "
            "This is the plugin's error, not the negotiation's."
        ) from cause


def _closest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
