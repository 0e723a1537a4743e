"""Check the encoder that is built from a module's feature maps.

The encoder must have every parameter that the module's output depends on, train the same parameters as the module, and return
maps of the expected shapes for every image size and mode that the module accepts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from zoo.common.format_names import format_names
from zoo.errors import NegotiationError, PluginError
from zoo.model.probing.measurement import run, set_modes
from zoo.model.probing.observation import Observation
from zoo.model.probing.sightings import Sighting
from zoo.registry.registry import default_registry

__all__ = ["check_complete", "check_gradients", "check_shapes", "check_strides"]


def check_complete(observation: Observation, maps: Sequence[Sighting], needed: frozenset[int]) -> None:
    """Raise a NegotiationError if the maps leave out parameters that the module's last map or last tokens depend on."""
    module, owner = observation.module, observation.owner
    missing = needed.difference(*(sighting.parameters for sighting in maps))
    if not missing:
        return
    names = [name for name, parameter in module.named_parameters() if id(parameter) in missing]
    found = ", ".join(f"{sighting.name} (stride {sighting.layout.stride:g})" for sighting in maps) or "none"
    package = type(module).__module__.partition(".")[0]
    plugins = sorted({plugin.name for plugin in default_registry().found})
    ids = ", ".join(f"`{name}:NAME`" for name in ([package] if package in plugins else plugins))
    raise NegotiationError(
        f"Not all feature maps of {owner} were found: {len(names)} of its parameters affect its output, but none of the maps "
        f"that were found: {format_names(names, 3)}. An encoder with these maps would lose these parameters. "
        f"Maps found: {found}. "
        "A map is (N, C, H, W) or (N, H, W, C). Tokens (N, L, C) are used only if the module declares `num_prefix_tokens` "
        "(the number of class and register tokens before the patch tokens) and `patch_size`, and if L is num_prefix_tokens "
        "plus the number of patches. "
        f"{observation.describe_tokens()} Set what is missing, use an encoder's id (`zoo list encoders`: {ids}), or pass "
        "a module whose forward returns a list of maps (such as a wrapper of `forward_intermediates`, if the module has it)."
    )


def check_strides(observation: Observation, maps: Sequence[Sighting]) -> None:
    """Raise a NegotiationError if the maps that a decoder receives leave out a parameter that another map depends on.

    A decoder receives only the last map of each stride.
    """
    module, owner = observation.module, observation.owner
    last = {sighting.level: sighting for sighting in maps}
    covered = frozenset().union(*(sighting.parameters for sighting in last.values()))
    lost = [sighting for sighting in maps if not sighting.parameters <= covered]
    if lost:
        kept = last[lost[0].level]
        names = [name for name, parameter in module.named_parameters() if id(parameter) in lost[0].parameters - covered]
        raise NegotiationError(
            f"{owner} returns {lost[0].name} ({lost[0].layout.channels} channels) and {kept.name} "
            f"({kept.layout.channels} channels), both of stride {kept.layout.stride:g}. A decoder receives only "
            f"the last map of each stride. An encoder without {lost[0].name} would leave out {len(names)} parameters that "
            f"{lost[0].name} depends on, such as {names[0]}. Pass a module that returns one map of each stride: a wrapper that "
            f"picks one of the maps or joins them, or the backbone inside {owner}."
        )


def check_gradients(observation: Observation, encoder: nn.Module, maps: Sequence[Sighting]) -> None:
    """Raise a PluginError if the encoder lacks parameters that are trained when the module itself is trained."""
    module, owner = observation.module, observation.owner
    if any(parameter.is_meta for parameter in module.parameters()):
        return
    trained = observation.own_values_and_gradients or {}
    needed = frozenset().union(*(sighting.parameters for sighting in maps))
    held = {id(parameter) for parameter in encoder.parameters()}
    lost = [
        name
        for name, parameter in module.named_parameters()
        if f"gradient {name}" in trained and id(parameter) in needed and id(parameter) not in held
    ]
    if lost:
        raise PluginError(
            f"Training {owner} itself updates parameters that an encoder made from its maps would not train: "
            f"{format_names(lost, 3)}. The maps are computed inside a torch.autograd.Function, which hides their gradients. "
            "If that is torch.utils.checkpoint with use_reentrant=True, pass use_reentrant=False."
        )


def check_shapes(observation: Observation, encoder: nn.Module, maps: Sequence[Sighting]) -> None:
    """Raise a PluginError if the encoder fails for an image size or a mode that the module accepts, or returns wrong shapes."""
    module, owner = observation.module, observation.owner
    small = observation.sizes[0]
    for size, training in ((small[::-1], False), ((small[0] // 4, small[1] // 4), False), (small, True)):
        set_modes(module, training=training)
        set_modes(encoder, training=training)
        where = f"for images of {size[0]} x {size[1]} in {'train' if training else 'eval'} mode"
        try:
            with torch.no_grad():
                run(module, size, observation.in_channels, on_meta=observation.on_meta)
        except Exception:  # noqa: BLE001 (the module itself does not accept this size or mode)
            continue
        try:
            with torch.no_grad():
                found, _ = run(encoder, size, observation.in_channels, on_meta=observation.on_meta)
        except Exception as cause:
            raise PluginError(f"{owner} runs {where}, but an encoder of its maps does not: {cause}") from cause
        for sighting, tensor in zip(maps, found, strict=True):
            if not sighting.layout.fits(tensor, size):
                raise PluginError(
                    f"{owner}: the map {sighting.name} has the shape {tuple(tensor.shape)} {where}, but "
                    f"{sighting.layout.channels} channels at stride {sighting.layout.stride:g} were expected. The module's "
                    "forward must compute the same maps for every image and in both modes."
                )
