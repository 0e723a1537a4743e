"""One encoder or decoder of the registry: where it comes from, and what its properties are with given options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from zoo.common.foreign_code import plugin_code
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError
from zoo.registry.image_sizes import ImageSizes
from zoo.registry.pyramid import Needs, Pyramid
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["Entry", "Kind"]

RESERVED = ("image_size", "in_channels", "maps", "weights")
"""The keyword arguments that zoo passes to encoder factories itself. No option may have one of these names."""

Kind: TypeAlias = Literal["encoder", "decoder"]

_A = TypeVar("_A")
_S = TypeVar("_S", EncoderSpec, DecoderSpec, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[_S]):
    """A spec, with the plugin and the distribution that it comes from.

    Attributes:
        kind: "encoder" or "decoder".
        plugin: the name of the plugin.
        distribution: the name of the distribution that provides the plugin; "" for a run-time registration.
        version: the version of the distribution; "" for a run-time registration.
        spec: the description of the encoder or decoder.
        is_canonical: whether zoo itself provides the encoder or decoder. If so, the bare name is never ambiguous.
    """

    kind: Kind
    plugin: str
    distribution: str
    version: str
    spec: _S
    is_canonical: bool = False

    @property
    def full_id(self) -> str:
        """The id that is never ambiguous: `plugin:name`."""
        return f"{self.plugin}:{self.spec.name}"

    @property
    def id(self) -> str:
        """The shortest unambiguous id: the bare name if zoo itself provides the encoder or decoder, otherwise the full id."""
        return self.spec.name if self.is_canonical else self.full_id

    def pyramid(self: Entry[EncoderSpec], options: Mapping[str, Any]) -> Pyramid:
        """Return every map that the encoder can return with these options.

        `needs`, `sizes` and `output_strides` raise the same errors, except that they do not refuse the names of arguments that
        zoo passes itself.

        Raises:
            OptionError: an option has the name of an argument that zoo passes itself, the spec does not declare an option, or
                the value of an option is not an allowed choice.
            PluginError: the plugin's function failed.
        """
        if reserved := sorted({*RESERVED, *self.spec.constants}.intersection(options)):
            keyword = f"; zoo.build has a keyword {reserved[0]!r} of its own" if reserved[0] in RESERVED else ""
            raise OptionError(f"{reserved[0]!r} is not an option of {self.id}: zoo passes it itself{keyword}.")
        return self._ask("pyramid function", self.spec.pyramid_for, options)

    def find_local_weights(self: Entry[EncoderSpec]) -> str | None:
        """Return the first name of weights that are on this machine; None if there are none, or if this is not known.

        Raises:
            PluginError: the plugin's function failed.
        """
        is_local = self.spec.local_weights
        if is_local is None:
            return None
        what = f"The local_weights function of {self.full_id}"
        with plugin_code(what, avoidance=f"Or continue without it: leave {self.full_id} out."):
            return next((name for name in self.spec.weights if is_local(name)), None)

    def needs(self: Entry[DecoderSpec], options: Mapping[str, Any]) -> Needs:
        """Return the needs of the decoder with these options."""
        return self._ask("needs function", self.spec.needs_for, options)

    def sizes(self: Entry[EncoderSpec], options: Mapping[str, Any]) -> ImageSizes:
        """Return the image sizes that the encoder accepts with these options."""
        return self._ask("sizes function", self.spec.sizes_for, options)

    def output_strides(self: Entry[EncoderSpec], options: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the output strides that the encoder can have by dilation, given these options."""
        return self._ask("output_strides function", self.spec.output_strides_for, options)

    def _ask(self, what: str, function: Callable[[dict[str, Any]], _A], options: Mapping[str, Any]) -> _A:
        self._check_options(options)
        with plugin_code(
            f"The {what} of {self.full_id}",
            avoidance=f"Or continue without it: leave {self.full_id} out.",
            details=f" (options {dict(options)!r}). The error is in the plugin's code, not in zoo's",
        ):
            return function(dict(options))

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse an option that the spec does not declare, or a value that is not among the declared choices.

        If the spec does not declare its options, its factory checks them when it is called.
        """
        if self.spec.options is None:
            return
        declared = {option.name: option for option in self.spec.options}
        for name, value in options.items():
            if name not in declared:
                allowed = ", ".join(declared) or "none"
                hint = did_you_mean(name, list(declared))
                raise OptionError(f"{self.id} has no option {name!r}.{hint} Its options: {allowed}.")
            if (choices := declared[name].choices) and value not in choices:
                raise OptionError(f"{self.id}: {name} must be one of {', '.join(map(repr, choices))}; found {value!r}.")
