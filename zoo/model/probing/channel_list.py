"""Wrap decoder classes whose first argument is a plain list of channels, as in many tutorials, so that zoo can build them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import OptionError, PluginError, RegistrationError
from zoo.model.probing.decoder_output import image_side, is_coarsest, measure_output, random_maps, uses_finest
from zoo.model.probing.forward_inputs import ForwardInputs, format_needs, inputs_of, merge_needs
from zoo.registry.pyramid import Needs, Pyramid

__all__ = ["ChannelListDecoder", "ChannelListFactory", "from_channels"]


def from_channels(
    decoder: Callable[..., nn.Module], *, needs: Needs | None = None, classes: str | None = None, **defaults: Any
) -> ChannelListFactory:
    """Wrap a class `decoder(in_channels_list, **options)` with `forward(x1, ..., xn)`, so that it can be registered.

    The first argument of the class is the list of the channels of *all* the encoder's maps, fine to coarse, as returned by
    `zoo.channels`. Its `forward` receives the maps in the same order. A `forward` that names its inputs one by one receives
    one map for each of them. A `forward` with a single input, or whose first input is annotated as a list, receives the list of
    all maps. A single input that is annotated as a `Tensor` receives the coarsest map.

    When zoo builds the decoder, it also runs it, to measure the number of channels and the stride of its output. The optional
    members of a decoder are used if the class has them: `make_head`, `aux_channels` with `forward_aux` (which receives the
    maps in the same form as `forward`), and `set_grad_checkpointing`.

    Args:
        decoder: the class, or a function that returns the module.
        needs: the maps that the decoder needs; zoo adds those that an encoder lacks. By default, all the encoder's maps.
        classes: the name of the parameter for the number of classes, if the decoder computes the logits itself. zoo then adds
            no head. By default, the decoder returns features, and zoo adds a head.
        defaults: keywords that are passed to the decoder in each build, such as `out_channels=256`; a pairing's
            `decoder_options` override them.

    Raises:
        RegistrationError: `decoder` is not a decoder class, or `needs` or `classes` do not fit it.

    Example:
        >>> zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=256))
        >>> model = zoo.build("resnet18", "basic", classes=19)
    """
    if not callable(decoder):
        raise RegistrationError(f"zoo.from_channels wraps a decoder class; found {decoder!r}.")
    return ChannelListFactory(decoder, defaults, needs, classes)


class ChannelListFactory:
    """Builds a `ChannelListDecoder` for a pyramid. Unless `needs` are passed, they are read from the class's `forward`."""

    def __init__(
        self, decoder: Callable[..., nn.Module], defaults: dict[str, Any], needs: Needs | None, classes: str | None
    ) -> None:
        self.decoder = decoder
        self.defaults = defaults
        self.classes = classes
        self.makes_logits = classes is not None
        self._states_needs = needs is not None
        try:
            signature = inspect.signature(decoder)
        except (TypeError, ValueError) as cause:
            raise RegistrationError(f"zoo.from_channels wraps a decoder class; found {decoder!r}.") from cause
        given = {
            **({} if needs is None else {"needs": str(needs)}),
            **({} if classes is None else {"classes": classes}),
            **defaults,
        }
        name = f"{decoder.__module__}:{getattr(decoder, '__qualname__', repr(decoder))}"
        self.origin = f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
        self._inputs = inputs_of(getattr(decoder, "forward", None))
        self.needs = merge_needs(needs, self._inputs, self.origin)
        self._signature = signature
        self.__doc__ = decoder.__doc__
        self.__signature__ = signature if classes is None else _rename_classes(signature, classes, defaults, self.origin)

    def __call__(self, pyramid: Pyramid, **options: Any) -> ChannelListDecoder:
        """Build the wrapped decoder for the pyramid's channels. A second decoder is built and run, to measure the output."""
        options = {**self.defaults, **options}
        if self.classes is not None:
            count = options.pop("classes")
            if self.classes in options:
                raise OptionError(f"{self.classes!r} is the number of classes of {self.origin}. Pass it as classes= only.")
            options[self.classes] = count
        channels = [feature_map.channels for feature_map in pyramid]
        self._check_count(self._inputs, len(channels))
        self._check_complete(channels, options)
        module = self.decoder(channels, **options)
        inputs = inputs_of(type(module).forward)
        self._check_count(inputs, len(channels))
        device = torch.get_default_device()
        own = [] if device.type in ("cpu", "meta") else [device.index or 0]
        with torch.random.fork_rng(devices=own, device_type=device.type if own else "cuda"):
            twin = ChannelListDecoder(self.decoder(channels, **options), takes_list=inputs.takes_list)
            out_channels, out_stride = measure_output(twin, pyramid, self.origin, inputs)
            self._check_list(pyramid, options, inputs)
            # Explicit needs prevent the warning: the order is then intended. Some decoders resize all maps to the coarsest map.
            if not self._states_needs and is_coarsest(out_stride, pyramid) and uses_finest(twin, pyramid):
                logging.getLogger(__name__).warning(
                    "%s uses its finest map, but returns a map of stride %g, as coarse as its coarsest map. If it expects its "
                    "maps coarse to fine, reverse them in a wrapper. If not, declare the maps that it takes with needs=.",
                    self.origin,
                    out_stride,
                )
        if out_stride < 1 and not self.makes_logits:
            raise PluginError(
                f"{self.origin} returned a map {1 / out_stride:g} times as large as the image. Its map must not be larger "
                "than the image: leave out an upsampling."
            )
        return ChannelListDecoder(module, out_channels, out_stride, takes_list=inputs.takes_list)

    def _check_list(self, pyramid: Pyramid, options: dict[str, Any], inputs: ForwardInputs) -> None:
        """Raise a PluginError if the decoder uses the list of channels, but accepts the same maps for any list.

        The first parameter of such a class has another meaning. The check builds and runs the decoder on the meta device,
        where nothing is computed. A decoder that cannot be built or run there is not checked.
        """
        doubled = [replace(entry, channels=2 * entry.channels) for entry in pyramid]

        def takes(maps: Sequence[Tensor]) -> bool:
            try:
                decoder.eval()(maps)
            except Exception:  # noqa: BLE001 - the class's own error, or PyTorch's for channels that do not fit
                return False
            return True

        try:
            with torch.device("meta"), torch.no_grad():
                built = (self.decoder([entry.channels for entry in each], **options) for each in (pyramid, doubled))
                usual, decoder = (ChannelListDecoder(module, takes_list=inputs.takes_list) for module in built)
                is_used = [each.shape for each in usual.parameters()] != [each.shape for each in decoder.parameters()]
                size = (image_side(pyramid), image_side(pyramid))
                if not is_used or not takes(random_maps(pyramid, size)) or takes(random_maps(doubled, size)):
                    return
        except Exception:  # noqa: BLE001 - the class cannot be built on the meta device, or for other channels
            return
        first, *_ = self._signature.parameters
        raise PluginError(
            f"{self.origin} still accepts maps with the original channels when it is built for twice as many. So its first "
            f"parameter, {first!r}, does not set the channels of its maps. Pass the list to the parameter that does: "
            "zoo.from_channels(lambda channels, **options: CLASS(PARAMETER=channels, **options))."
        )

    def _check_count(self, inputs: ForwardInputs, count: int) -> None:
        if not inputs.allows(count):
            raise PluginError(
                f"The forward of {self.origin} takes {inputs}, but the pyramid has {count}. "
                f"Declare which maps it takes: zoo.from_channels(..., {format_needs(inputs.fewest)})."
            )

    def _check_complete(self, channels: list[int], options: dict[str, Any]) -> None:
        """Raise a PluginError for missing arguments of the class, with the ways to pass them."""
        try:
            self._signature.bind(channels, **options)
        except TypeError as cause:
            _, *parameters = self._signature.parameters.values()
            missing = [
                entry.name
                for entry in parameters
                if entry.default is entry.empty
                and entry.kind in (entry.POSITIONAL_OR_KEYWORD, entry.KEYWORD_ONLY)
                and entry.name not in options
            ]
            if not missing:
                raise
            raise PluginError(
                f"{self.origin} requires {', '.join(missing)}. Pass a value: zoo.from_channels(..., {missing[0]}=...), or "
                f"decoder_options={{{missing[0]!r}: ...}}. If it is the number of classes and the class computes the logits "
                f"itself, use zoo.from_channels(..., classes={missing[0]!r}), which declares makes_logits=True."
            ) from cause

    def __repr__(self) -> str:
        return f"zoo.from_channels({self.origin})"


class ChannelListDecoder(nn.Module):
    """A wrapped decoder, which turns a list of maps into one map."""

    def __init__(self, module: nn.Module, out_channels: int = 0, out_stride: float = 0, *, takes_list: bool = False) -> None:
        super().__init__()
        self.module = module
        self.out_channels = out_channels
        self.out_stride = out_stride
        self._takes_list = takes_list

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the wrapped module's output for the maps. The module receives the maps one by one or as a list."""
        output: Tensor = self._call(self.module, features)
        return output

    # The optional members of a decoder. Each raises an `AttributeError` if the wrapped class does not have it.

    @property
    def make_head(self) -> Callable[[int], nn.Module]:
        """The `make_head` of the wrapped class."""
        return self.module.make_head  # type: ignore[return-value]

    @property
    def aux_channels(self) -> Sequence[int]:
        """The number of channels of each map in the list that `forward_aux` returns."""
        return self.module.aux_channels  # type: ignore[return-value]

    @property
    def forward_aux(self) -> Callable[[Sequence[Tensor]], Any]:
        """The `forward_aux` of the wrapped class, which receives the maps in the same form as `forward`."""
        return partial(self._call, self.module.forward_aux)  # type: ignore[arg-type]

    @property
    def set_grad_checkpointing(self) -> Callable[[bool], None]:
        """The `set_grad_checkpointing` of the wrapped class."""
        return self.module.set_grad_checkpointing  # type: ignore[return-value]

    def _call(self, function: Callable[..., Any], features: Sequence[Tensor]) -> Any:
        return function(list(features)) if self._takes_list else function(*features)


def _rename_classes(signature: inspect.Signature, classes: str, defaults: dict[str, Any], origin: str) -> inspect.Signature:
    """Return the signature with the parameter for the number of classes renamed to `classes`."""
    if not isinstance(classes, str):
        raise RegistrationError(
            f"{origin}: classes must be the name of the parameter for the number of classes, such as "
            f"classes='out_channels'; found {classes!r}. Pass the number itself to zoo.build."
        )
    first, *parameters = signature.parameters.values()
    names = [entry.name for entry in parameters if entry.kind not in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD)]
    takes_any = any(entry.kind is entry.VAR_KEYWORD for entry in parameters)
    if classes in defaults or (classes not in names and not takes_any) or ("classes" in names and classes != "classes"):
        problem = (
            f"zoo.from_channels also received a value for {classes!r}; leave out that value"
            if classes in defaults
            else f"the decoder has no parameter {classes!r}; its parameters: {', '.join(names) or 'none'}"
            if classes not in names
            else "the decoder also has a parameter 'classes'; wrap a function that takes only one of them"
        )
        raise RegistrationError(
            f"{origin}: classes= must name the parameter for the number of classes; found {classes!r}, but {problem}."
        )
    return signature.replace(
        parameters=[first, *(entry.replace(name="classes") if entry.name == classes else entry for entry in parameters)]
    )
