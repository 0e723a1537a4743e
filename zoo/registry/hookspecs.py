"""The hooks that a plugin may implement. pluggy validates and calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["API_VERSION", "GROUP", "hookimpl", "hookspec"]

API_VERSION = 1
"""The version of the plugin API: these hooks and the specs. A plugin's module states the version that it was written for as
`zoo_api`, by default 1. zoo refuses a plugin for a later version, and loads a plugin for an earlier version."""

GROUP = "zoo"
"""The entry point group of plugins, and the project name for pluggy."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def zoo_encoders() -> Iterable[EncoderSpec]:  # type: ignore[empty-body]
    """Yield the specs of the encoders that this plugin provides."""


@hookspec
def zoo_decoders() -> Iterable[DecoderSpec]:  # type: ignore[empty-body]
    """Yield the specs of the decoders that this plugin provides."""


@hookspec
def zoo_takeovers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return a mapping from a library's module name to the path of the function that converts the library's models.

    The path has the form `package.module:name`. zoo calls the function as `function(model, preprocessing=...)`, where `model`
    is a model of the library or the path of a saved one. The function must return a `zoo.SegmentationModel`
    that has the same output as `model`.
    """
