"""The hooks that a plugin may implement. pluggy validates and calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["API_VERSION", "GROUP", "hookimpl", "hookspec"]

API_VERSION = 1
"""The version of the plugin API, which consists of these hooks and the specs. A plugin's module may have a variable `zoo_api`:
the version that the plugin was written for. Without the variable, this version is 1. zoo loads a plugin that was written for
this version or an earlier one, and refuses a plugin for a later version."""

GROUP = "zoo"
"""The entry point group in which distributions declare plugins. pluggy also requires a project name: the same text."""

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
