"""The hooks that a plugin may implement; pluggy carries and validates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["API_VERSION", "GROUP", "hookimpl", "hookspec"]

API_VERSION = 1
"""The version of the interface between plugins and zoo: these hooks and the specs. A plugin states the version it was made for
as its module's `zoo_api`, by default 1. A plugin made for a later version is refused; an earlier one works as far as it can."""

GROUP = "zoo"
"""The entry point group that plugins are found through, and pluggy's project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def zoo_encoders() -> Iterable[EncoderSpec]:  # type: ignore[empty-body]
    """Yield the encoders that this plugin gives."""


@hookspec
def zoo_decoders() -> Iterable[DecoderSpec]:  # type: ignore[empty-body]
    """Yield the decoders that this plugin gives."""


@hookspec
def zoo_takeovers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return the functions that convert models of other libraries: `package.module:name` by the library's module name.

    Each is called as `function(model, preprocessing=...)`, where the model may be a path, and returns a
    `zoo.SegmentationModel` that gives the same output.
    """
