"""Decoders as tutorials write them: a class made from a plain channel list, taken over untouched."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_origin

import torch
from torch import Tensor, nn

from zoo.errors import OptionError, PluginError, RegistrationError
from zoo.model.outputs import describe
from zoo.registry.image_sizes import Size
from zoo.registry.pyramid import FeatureMap, Needs, Pyramid

__all__ = ["ChannelListDecoder", "ChannelListFactory", "from_channels"]


def from_channels(
    decoder: Callable[..., nn.Module], *, needs: Needs | None = None, classes: str | None = None, **defaults: Any
) -> ChannelListFactory:
    """Wrap `decoder(in_channels_list, **options)` with `forward(x1, ..., xn)`, so that it registers as it is.

    The class gets the channels of *all* the encoder's maps as its first argument, fine to coarse, as `zoo.channels` lists
    them, and its `forward` gets the maps in that order. A `forward` that names its inputs one by one needs that many maps.
    A `forward` with a single input, or whose first input is annotated as a list, gets the list of all maps; a single input
    that is annotated as a `Tensor` gets the coarsest map. zoo runs the decoder when it builds it, to measure how many
    channels it returns and at which stride. What else a decoder may have is used where the class has it: `make_head`,
    `aux_channels` with `forward_aux`, which gets the maps as `forward` does, and `set_grad_checkpointing`.

    Args:
        decoder: the class (or a function that makes the module).
        needs: which maps it takes; zoo makes those that an encoder does not have. By default all the encoder's maps.
        classes: the name of the parameter that takes the number of classes, for a decoder that makes the logits itself:
            no head is added. By default the decoder returns features.
        defaults: keywords handed to it each time, such as `out_channels=256`; a pairing's `decoder_options` override them.

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
    """Makes a `ChannelListDecoder` for any pyramid; its `needs` follow from the wrapped class's `forward`."""

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
        self._inputs = _inputs_of(getattr(decoder, "forward", None))
        self.needs = _merged(needs, self._inputs, self.origin)
        self._signature = signature
        self.__doc__ = decoder.__doc__
        self.__signature__ = signature if classes is None else _renamed(signature, classes, defaults, self.origin)

    def __call__(self, pyramid: Pyramid, **options: Any) -> ChannelListDecoder:
        """Build the wrapped decoder for the pyramid's channels, and run another build of it to see what it returns."""
        options = {**self.defaults, **options}
        if self.classes is not None:
            count = options.pop("classes")
            if self.classes in options:
                raise OptionError(f"{self.classes!r} is the number of classes of {self.origin}; give classes= alone.")
            options[self.classes] = count
        channels = [feature_map.channels for feature_map in pyramid]
        self._check_count(self._inputs, len(channels))
        self._check_complete(channels, options)
        module = self.decoder(channels, **options)
        inputs = _inputs_of(type(module).forward)
        self._check_count(inputs, len(channels))
        device = torch.get_default_device()
        own = [] if device.type in ("cpu", "meta") else [device.index or 0]
        with torch.random.fork_rng(devices=own, device_type=device.type if own else "cuda"):
            twin = ChannelListDecoder(self.decoder(channels, **options), takes_list=inputs.takes_list)
            out_channels, out_stride = _measured(twin, pyramid, self.origin, inputs)
            self._check_list(pyramid, options, inputs)
            # Who states needs has thought about the maps; a decoder may well gather all of them on the coarsest one's grid.
            if not self._states_needs and _is_coarsest(out_stride, pyramid) and _uses_finest(twin, pyramid):
                logging.getLogger(__name__).warning(
                    "%s uses the finest of its maps and returns one of stride %g, as coarse as the coarsest. If it expects its "
                    "maps coarse to fine, reverse them in a wrapper; if not, say which maps it takes by needs=.",
                    self.origin,
                    out_stride,
                )
        if out_stride < 1 and not self.makes_logits:
            raise PluginError(
                f"{self.origin} returned a map {1 / out_stride:g} times as large as the image; it must return one of the "
                "image's size at the most: leave out an upsampling."
            )
        return ChannelListDecoder(module, out_channels, out_stride, takes_list=inputs.takes_list)

    def _check_list(self, pyramid: Pyramid, options: dict[str, Any], inputs: _Inputs) -> None:
        """Refuse a class that uses the list, but takes the same maps whatever it is: its first parameter is another one.

        This is tried on the meta device, where nothing is computed; what cannot be built or run there shows nothing.
        """
        doubled = [replace(entry, channels=2 * entry.channels) for entry in pyramid]

        def takes(maps: Sequence[Tensor]) -> bool:
            try:
                decoder.eval()(maps)
            except Exception:  # noqa: BLE001 - the class's own, or PyTorch's for a width that does not fit
                return False
            return True

        try:
            with torch.device("meta"), torch.no_grad():
                built = (self.decoder([entry.channels for entry in each], **options) for each in (pyramid, doubled))
                usual, decoder = (ChannelListDecoder(module, takes_list=inputs.takes_list) for module in built)
                is_used = [each.shape for each in usual.parameters()] != [each.shape for each in decoder.parameters()]
                size = (_side(pyramid), _side(pyramid))
                if not is_used or not takes(_random_maps(pyramid, size)) or takes(_random_maps(doubled, size)):
                    return
        except Exception:  # noqa: BLE001 - the class cannot be made on the meta device, or for other widths
            return
        first, *_ = self._signature.parameters
        raise PluginError(
            f"{self.origin} takes the same maps whatever channels it is made for: the list goes to its first parameter, "
            f"{first!r}, which does not say what its maps have. Give it to the parameter that does: "
            "zoo.from_channels(lambda channels, **options: CLASS(PARAMETER=channels, **options))."
        )

    def _check_count(self, inputs: _Inputs, count: int) -> None:
        if not inputs.allows(count):
            raise PluginError(
                f"The forward of {self.origin} takes {inputs}, and the pyramid has {count}. "
                f"Say which maps it takes: zoo.from_channels(..., {_needs_text(inputs.fewest)})."
            )

    def _check_complete(self, channels: list[int], options: dict[str, Any]) -> None:
        """Refuse to call the class without what it requires, and say how to give it."""
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
                f"{self.origin} requires {', '.join(missing)}. Give a value: zoo.from_channels(..., {missing[0]}=...), or "
                f"decoder_options={{{missing[0]!r}: ...}}. If that is the number of classes, and the class makes the logits "
                f"itself: zoo.from_channels(..., classes={missing[0]!r}), which declares makes_logits=True for it."
            ) from cause

    def __repr__(self) -> str:
        return f"zoo.from_channels({self.origin})"


class ChannelListDecoder(nn.Module):
    """A wrapped decoder: a list of maps in, one map out."""

    def __init__(self, module: nn.Module, out_channels: int = 0, out_stride: float = 0, *, takes_list: bool = False) -> None:
        super().__init__()
        self.module = module
        self.out_channels = out_channels
        self.out_stride = out_stride
        self._takes_list = takes_list

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Hand the maps to the wrapped module, one by one or as a list."""
        output: Tensor = self._given(self.module, features)
        return output

    # What a decoder may have beside `forward`; an `AttributeError` within says that the wrapped class has it not.

    @property
    def make_head(self) -> Callable[[int], nn.Module]:
        """The wrapped class's own head."""
        return self.module.make_head  # type: ignore[return-value]

    @property
    def aux_channels(self) -> Sequence[int]:
        """The widths of the wrapped class's coarser maps."""
        return self.module.aux_channels  # type: ignore[return-value]

    @property
    def forward_aux(self) -> Callable[[Sequence[Tensor]], Any]:
        """The wrapped class's `forward_aux`, which gets the maps as its `forward` does."""
        return partial(self._given, self.module.forward_aux)  # type: ignore[arg-type]

    @property
    def set_grad_checkpointing(self) -> Callable[[bool], None]:
        """The wrapped class's own switch."""
        return self.module.set_grad_checkpointing  # type: ignore[return-value]

    def _given(self, function: Callable[..., Any], features: Sequence[Tensor]) -> Any:
        return function(list(features)) if self._takes_list else function(*features)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """How many maps a `forward` takes, at least and at most (None: any number), and whether it takes them as one list."""

    fewest: int = 1
    most: int | None = None
    takes_list: bool = False

    def allows(self, count: int) -> bool:
        return self.fewest <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most == self.fewest:
            return f"{self.most} map{'s' if self.most > 1 else ''}"
        return f"at least {self.fewest} maps" if self.most is None else f"{self.fewest} to {self.most} maps"


def _inputs_of(forward: Callable[..., Any] | None) -> _Inputs:
    """Return what a class's `forward` takes; of a function that makes the module nothing is known before it is called."""
    if forward is None:
        return _Inputs()
    try:
        signature = inspect.signature(forward, eval_str=True)
    except Exception:  # noqa: BLE001 - an annotation that cannot be evaluated here; its text is read instead
        signature = inspect.signature(forward)
    parameters = list(signature.parameters.values())[1:]
    named = [
        entry
        for entry in parameters
        if entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD) and entry.default in (entry.empty, None)
    ]
    required = [entry for entry in named if entry.default is entry.empty]
    if any(entry.kind is entry.VAR_POSITIONAL for entry in parameters):
        return _Inputs(fewest=max(1, len(required)))
    if named and len(required) <= 1 and _is_list(named[0].annotation, unless_said=len(named) == 1):
        return _Inputs(takes_list=True)
    return _Inputs(fewest=max(1, len(required)), most=max(1, len(named)))


def _is_list(annotation: object, *, unless_said: bool) -> bool:
    """Return whether an input is annotated as a list of maps; `unless_said` where nothing or something else is said."""
    if annotation is Tensor or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Tensor"):
        return False
    if isinstance(annotation, str):
        name = annotation.partition("[")[0].rpartition(".")[2].lower()
        return name in ("list", "tuple", "sequence") or unless_said
    return (get_origin(annotation) or annotation) in (list, tuple, Sequence) or unless_said


def _merged(needs: Needs | None, inputs: _Inputs, origin: str) -> Needs:
    """Return the needs asked for, with as many maps as `forward` names."""
    if needs is None:
        return Needs(min_levels=inputs.fewest, max_levels=inputs.most, distinct_strides=False)
    if not isinstance(needs, Needs):
        raise RegistrationError(f"{origin}: needs must be a zoo.Needs; found {needs!r}.")
    image = int(needs.image)  # comes first, and counts as none of the levels
    named = None if needs.one_stride or needs.strides is None else len(needs.strides)
    counts = [count + image for count in (needs.max_levels, named) if count is not None]
    if any(not inputs.allows(count) for count in counts):
        raise RegistrationError(
            f"{origin}: its forward takes {inputs}, and its needs allow {min(counts)}; write {_needs_text(inputs.fewest)}."
        )
    most = needs.max_levels if counts or inputs.most is None else inputs.most - image
    return replace(needs, min_levels=max(needs.min_levels, inputs.fewest - image), max_levels=most)


def _needs_text(count: int) -> str:
    """Return needs that any encoder meets with `count` maps, as they are written."""
    finest = max(0, 6 - count)
    strides = ", ".join(str(2**level) for level in range(finest, finest + count))
    return f"needs=zoo.Needs(strides=({strides}{',' if count == 1 else ''}))"


def _renamed(signature: inspect.Signature, classes: str, defaults: dict[str, Any], origin: str) -> inspect.Signature:
    """Return the signature with the parameter for the number of classes under the name that zoo gives it by."""
    if not isinstance(classes, str):
        raise RegistrationError(
            f"{origin}: classes names the parameter that takes the number of classes, such as classes='out_channels'; "
            f"found {classes!r}. The number itself is said to zoo.build."
        )
    first, *parameters = signature.parameters.values()
    names = [entry.name for entry in parameters if entry.kind not in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD)]
    takes_any = any(entry.kind is entry.VAR_KEYWORD for entry in parameters)
    if classes in defaults or (classes not in names and not takes_any) or ("classes" in names and classes != "classes"):
        problem = (
            f"{classes!r} has a default in zoo.from_channels as well; leave it out"
            if classes in defaults
            else f"it has no parameter {classes!r}; its parameters: {', '.join(names) or 'none'}"
            if classes not in names
            else f"it has a parameter 'classes' beside {classes!r}; wrap a function that takes one of them"
        )
        raise RegistrationError(f"{origin}: classes={classes!r} names the parameter for the number of classes, and {problem}.")
    return signature.replace(
        parameters=[first, *(entry.replace(name="classes") if entry.name == classes else entry for entry in parameters)]
    )


def _measured(decoder: ChannelListDecoder, pyramid: Pyramid, origin: str, inputs: _Inputs) -> tuple[int, float]:
    """Return the channels and the stride of what a decoder returns for this pyramid, by two runs on the default device.

    The images differ in their ratio, so that a fixed size or another order of the axes shows. The runs are real wherever the
    model is: on the meta device a transposed convolution, for one, checks no channels.
    """
    side = _side(pyramid)
    sizes = ((side, 2 * side), (2 * side, side))
    outputs = [_run(decoder, pyramid, size, origin, inputs) for size in sizes]
    _check_follows(outputs, sizes, origin)
    return outputs[0].shape[1], side / outputs[0].shape[2]


def _is_coarsest(out_stride: float, pyramid: Pyramid) -> bool:
    """Return whether a map is as coarse as the coarsest of several."""
    strides = [entry.stride for entry in pyramid]
    return min(strides) < max(strides) <= 1.25 * out_stride


def _uses_finest(decoder: ChannelListDecoder, pyramid: Pyramid) -> bool:
    """Return whether what a decoder returns depends on the finest map."""
    finest, *others = _random_maps(pyramid, (_side(pyramid), _side(pyramid)))
    with torch.no_grad():
        before, after = (decoder.eval()([each, *others]) for each in (finest, 1 - finest))
    return not before.is_meta and not torch.equal(before, after)


def _side(pyramid: Pyramid) -> int:
    """Return the side of an image that is large enough for the coarsest map to have four pixels along each side, or more."""
    side: int = 4 * 2 ** math.ceil(math.log2(max(feature_map.stride for feature_map in pyramid)))
    return side


def _random_maps(pyramid: Sequence[FeatureMap], size: Size) -> list[Tensor]:
    """Return random maps of two images of this size."""
    return [torch.rand(2, entry.channels, *(max(1, round(side / entry.stride)) for side in size)) for entry in pyramid]


def _run(decoder: ChannelListDecoder, pyramid: Pyramid, size: Size, origin: str, inputs: _Inputs) -> Tensor:
    """Return what a decoder returns for random maps of an image of this size."""
    maps = _random_maps(pyramid, size)
    try:
        with torch.no_grad():
            output: object = decoder.eval()(maps)
    except Exception as cause:
        shapes = ", ".join(str(tuple(entry.shape)) for entry in maps) + (" on the meta device" if maps[0].is_meta else "")
        reason = str(cause).partition("\n")[0].rstrip(". ")
        convention = "one by one, fine to coarse"
        if inputs.takes_list:
            convention = "as one list, fine to coarse; annotate its input as torch.Tensor if it takes a single map"
        elif inputs.fewest == 1 < (inputs.most or 1):
            convention += "; annotate its first input as list[torch.Tensor] if that takes them all"
        raise PluginError(
            f"{origin} raised {type(cause).__name__} for maps of shape {shapes}: {reason}. Its forward gets the encoder's maps "
            f"{convention}. If it takes certain maps only, say so: zoo.from_channels(..., needs=zoo.Needs(strides=...))."
        ) from cause
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise PluginError(f"{origin} must return one tensor (N, channels, h, w); found {describe(output)}.")
    return output


def _check_follows(outputs: Sequence[Tensor], sizes: Sequence[Size], origin: str) -> None:
    """Refuse what is no map (N, channels, h, w) of the same channels and stride for each image."""
    if _follow(outputs, sizes, axes=(2, 3)) and len({output.shape[1] for output in outputs}) == 1:
        return
    found = " and ".join(
        f"{describe(output)} for an image of {height} x {width}" for output, (height, width) in zip(outputs, sizes, strict=True)
    )
    remedy = (
        "it has its channels last; return x.permute(0, 3, 1, 2)"
        if _follow(outputs, sizes, axes=(1, 2))
        else "take every size from the maps that it gets"
    )
    raise PluginError(
        f"{origin} returned {found}: it must return a map (N, channels, h, w) whose h and w follow the image's; {remedy}."
    )


def _follow(outputs: Sequence[Tensor], sizes: Sequence[Size], axes: tuple[int, int]) -> bool:
    """Return whether the axes follow all images at one stride; strides that are no powers of two round the maps' sizes."""
    shares = [
        output.shape[axis] / whole
        for output, size in zip(outputs, sizes, strict=True)
        for axis, whole in zip(axes, size, strict=True)
    ]
    return 0.75 * max(shares) < min(shares)
