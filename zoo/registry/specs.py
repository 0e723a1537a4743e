"""Specs of encoders and decoders: plain data, and a factory that is imported only when a model is built."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, TypeAlias

from zoo.errors import RegistrationError
from zoo.registry.image_sizes import ImageSizes
from zoo.registry.pyramid import Needs, Pyramid, check_pyramid

__all__ = ["DecoderSpec", "EncoderSpec", "Factory", "Option", "Preprocessing", "Spec", "import_factory", "is_factory_path"]

Factory: TypeAlias = "str | Callable[..., Any]"
"""A callable, or its path `package.module:name`, which is imported only when a model is built."""

LARGEST, SMALLEST = 1e12, 1e-6
"""The limits for normalized pixels. LARGEST is the upper limit for their absolute value. SMALLEST is the lower limit for the
difference between the darkest and the lightest pixel; if the largest absolute value is above 1, the difference is first divided
by that value. The limits were chosen for weights of about 1, and for float32, which has about seven digits."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How to convert an image to a tensor like those the weights were trained on: `(image in value_range - mean) / std`.

    Attributes:
        mean: one value per channel, in units of `value_range`.
        std: one value per channel, in units of `value_range`.
        value_range: the lowest and the highest value of a pixel before the mean is subtracted.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise RegistrationError(
                f"Preprocessing: mean and std must each have one value per channel, found {self.mean} and {self.std}."
            )
        for name in ("mean", "std", "value_range"):
            numbers = getattr(self, name)
            if not all(map(_is_finite_number, numbers)):
                raise RegistrationError(f"Preprocessing: {name} must be finite numbers, found {numbers!r}.")
        if min(self.std) <= 0:
            raise RegistrationError(f"Preprocessing: std must be above 0, found {self.std}.")
        if len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]:
            raise RegistrationError(f"Preprocessing: value_range must be a lower and a higher value, found {self.value_range}.")
        for mean, std in zip(self.mean, self.std, strict=True):
            low, high = ((float(value) - float(mean)) / float(std) for value in self.value_range)
            largest = max(abs(low), abs(high))
            if not (largest <= LARGEST and high - low >= SMALLEST * max(1.0, largest)):
                raise RegistrationError(
                    f"Preprocessing: with the mean {mean!r} and the std {std!r}, the lowest and the highest pixel of "
                    f"the value_range {self.value_range} become {low:g} and {high:g}. In float32, a model would see no "
                    "difference between pixels, or NaN. Give mean and std in units of value_range."
                )

    @classmethod
    def identity(cls, channels: int) -> Preprocessing:
        """Return the preprocessing for random weights: pixels from 0 to 1, unchanged."""
        return cls(mean=(0.0,) * channels, std=(1.0,) * channels)

    @classmethod
    def imagenet(cls, channels: int) -> Preprocessing:
        """Return the preprocessing that torchvision and most libraries use on ImageNet, for `channels` input channels."""
        return cls(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).for_channels(channels)

    def for_channels(self, channels: int) -> Preprocessing:
        """Return this preprocessing for an encoder whose first convolution was adapted to `channels` input channels.

        For one channel, the convolution's kernels are summed, so mean and std are averaged over the channels. For any
        other number of channels, the kernels are repeated in their order, and so are the values of mean and std.
        """
        if channels == len(self.mean):
            return self
        mean: tuple[float, ...]
        std: tuple[float, ...]
        if channels == 1:
            mean, std = (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)
        else:
            mean = tuple(self.mean[index % len(self.mean)] for index in range(channels))
            std = tuple(self.std[index % len(self.std)] for index in range(channels))
        return Preprocessing(mean=mean, std=std, value_range=self.value_range)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A keyword argument that a factory accepts in addition to those that zoo passes to every factory.

    `zoo show` and error messages use this description.

    Attributes:
        name: the name of the keyword argument.
        default: the value if none is given.
        summary: what the option does, in a few words.
        choices: the allowed values. zoo refuses other values before a model is built. Empty if every value is allowed.
    """

    name: str
    default: Any
    summary: str
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.summary, str):
            raise RegistrationError(f"Option: name and summary must be text; found {self.name!r} and {self.summary!r}.")
        if not isinstance(self.choices, tuple):
            raise RegistrationError(f"Option {self.name!r}: choices must be a tuple; found {self.choices!r}.")
        if self.choices and self.default not in self.choices:
            raise RegistrationError(f"Option {self.name!r}: the default {self.default!r} is not among its choices.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """A plugin's description of an encoder.

    Attributes:
        name: the bare name; the full id is `plugin:name`, with the name of the plugin.
        factory: a callable or its path. It is called as `factory(maps=(names, ...), in_channels=..., weights=..., **options)`
            and returns an `nn.Module` whose `forward(image)` takes (N, in_channels, H, W) and returns exactly the maps of these
            names, NCHW, fine to coarse. The module must not contain stages that none of these maps needs. The module may have
            an attribute `preprocessing`: the `Preprocessing` that its weights need.
        pyramid: every map that the encoder can return: a tuple of `FeatureMap`, or a torch-free function of the encoder's
            options that returns the tuple.
        options: the keyword arguments that the factory accepts in addition to those above. If None, they are not declared, and
            only the factory checks them.
        constants: keyword arguments that are always passed to the factory, so that one factory can build a family of encoders.
        sizes: the image sizes that the encoder accepts: an `ImageSizes`, or a torch-free function of the encoder's options that
            returns one. If its `adapts` is True and the pairing has an image size, the factory is also called with
            `image_size=(H, W)`.
        output_strides: the values that the encoder's option `output_stride` accepts, or a torch-free function of the encoder's
            options that returns them. Empty if the encoder cannot replace strided convolutions with dilated ones. Otherwise,
            `pyramid` must be a function that accepts `output_stride`.
        weights: the names that `weights=` accepts in addition to a file's path.
        tags: the names of pretrained weights that may follow the encoder's name after a dot (`resnet50.a1_in1k`). The factory
            is then also called with `tag=`. A tag only chooses the pretrained weights: with `weights=None`, the encoder has
            random weights even with a tag.
        source: the paper or repository of the architecture.
        license: the license of the code, as an SPDX id (`LicenseRef-...` for a license that SPDX does not list).
        weights_license: the license of all weights, or a torch-free function that returns the license for one of `weights` or
            `tags`; "" if it is not known.
        local_weights: a torch-free function that returns whether the weights with one of the names in `weights` or `tags` are
            on this machine, so that using them downloads nothing; None if the plugin cannot tell. `zoo search` uses such
            weights.
    """

    name: str
    factory: Factory
    pyramid: Pyramid | Callable[..., Pyramid]
    options: tuple[Option, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    sizes: ImageSizes | Callable[..., ImageSizes] = field(default_factory=ImageSizes)
    output_strides: tuple[int, ...] | Callable[..., tuple[int, ...]] = ()
    weights: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    source: str = ""
    license: str = ""
    weights_license: str | Callable[[str], str] = ""
    local_weights: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        _check_name_and_factory("EncoderSpec", self.name, self.factory)
        _check_tuples("EncoderSpec", self.name, options=self.options, weights=self.weights, tags=self.tags)
        _check_kinds("EncoderSpec", self)
        if not all(isinstance(text, str) for text in (*self.weights, *self.tags)):
            raise RegistrationError(
                f"Encoder {self.name!r}: weights and tags must be names; found {self.weights!r:.80} and {self.tags!r:.80}."
            )
        if not isinstance(self.weights_license, str) and not callable(self.weights_license):
            raise RegistrationError(
                f"Encoder {self.name!r}: weights_license must be text or a function, found {self.weights_license!r}."
            )
        if self.local_weights is not None and not callable(self.local_weights):
            raise RegistrationError(
                f"Encoder {self.name!r}: local_weights must be a function or None, found {self.local_weights!r:.80}."
            )
        if self.output_strides:
            self._check_output_strides()
        if not isinstance(self.sizes, ImageSizes) and not callable(self.sizes):
            raise RegistrationError(
                f"Encoder {self.name!r}: sizes must be a zoo.plugin.ImageSizes or a function, found {self.sizes!r}."
            )
        if not callable(self.pyramid):
            object.__setattr__(self, "pyramid", check_pyramid(self.pyramid, f"Encoder {self.name!r}"))

    def _check_output_strides(self) -> None:
        if not callable(self.output_strides):
            _check_tuples("EncoderSpec", self.name, output_strides=self.output_strides)
            for stride in self.output_strides:
                _check_stride(f"EncoderSpec {self.name!r}: an output stride", stride)
        if not callable(self.pyramid):
            raise RegistrationError(
                f"Encoder {self.name!r} has output_strides, so its pyramid must be a function that takes output_stride=None."
            )
        if self.options is not None and "output_stride" not in [option.name for option in self.options]:
            raise RegistrationError(f"Encoder {self.name!r} has output_strides; declare the option 'output_stride' as well.")

    def pyramid_for(self, options: dict[str, Any]) -> Pyramid:
        """Return the maps that the encoder can return with these options."""
        if callable(self.pyramid):
            return check_pyramid(self.pyramid(**options), f"Encoder {self.name!r}")
        return self.pyramid

    def sizes_for(self, options: dict[str, Any]) -> ImageSizes:
        """Return the image sizes that the encoder accepts with these options."""
        sizes = self.sizes(**options) if callable(self.sizes) else self.sizes
        if not isinstance(sizes, ImageSizes):
            raise RegistrationError(
                f"Encoder {self.name!r}: its sizes function must return a zoo.plugin.ImageSizes, found {sizes!r}."
            )
        return sizes

    def output_strides_for(self, options: dict[str, Any]) -> tuple[int, ...]:
        """Return the output strides that the encoder can have by dilation, given these options."""
        return tuple(self.output_strides(**options) if callable(self.output_strides) else self.output_strides)

    def with_tag(self, tag: str) -> EncoderSpec:
        """Return the spec of this encoder with the weights of a tag."""
        is_local = self.local_weights
        return replace(
            self,
            name=f"{self.name}.{tag}",
            constants={**self.constants, "tag": tag},
            tags=(),
            weights_license=self.license_of_weights(tag),
            local_weights=None if is_local is None else lambda _: is_local(tag),
        )

    def license_of_weights(self, weights: str | None) -> str:
        """Return the license of the weights with this name or tag; "" for random weights, a file or an unknown license."""
        if weights not in (*self.weights, *self.tags) or weights is None:
            return ""
        return self.weights_license if isinstance(self.weights_license, str) else self.weights_license(weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A plugin's description of a decoder.

    Attributes:
        name: the bare name; the full id is `plugin:name`, with the name of the plugin.
        factory: a callable or its path. It is called as `factory(pyramid, **options)` and returns an `nn.Module` with
            `out_channels` and `out_stride`, whose `forward(features)` takes a list of the pyramid's tensors and returns one
            tensor (N, out_channels, h, w). If the module has a method `make_head(classes)`, this method makes the head.
            Otherwise, the head is a 1x1 convolution.
        makes_logits: whether the decoder computes the logits itself. If so, the factory is also called with `classes=`,
            `forward` returns (N, classes, h, w), no head is added, and `out_channels` and `out_stride` are not needed.
        needs: what the decoder requires of a pyramid: a `Needs`, or a torch-free function of the decoder's options that
            returns one.
        options: the factory's keyword arguments. If None, they are not declared, and only the factory checks them.
        out_stride: the stride of the map that the decoder returns, if this stride is the same for every pyramid; None if it is
            not declared. A decoder that declares 1 upsamples to the image's resolution itself.
        upsamples_learned: whether a decoder with `out_stride=1` upsamples in steps of two, each with learned convolutions.
        constants: keyword arguments that are always passed to the factory, so that one factory can build a family of decoders.
        source: the paper or repository of the method.
        license: the license of the code, as an SPDX id.
    """

    name: str
    factory: Factory
    needs: Needs | Callable[..., Needs] = field(default_factory=Needs)
    options: tuple[Option, ...] | None = None
    out_stride: int | None = None
    upsamples_learned: bool = False
    makes_logits: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        _check_name_and_factory("DecoderSpec", self.name, self.factory)
        _check_tuples("DecoderSpec", self.name, options=self.options)
        _check_kinds("DecoderSpec", self)
        if self.out_stride is not None:
            _check_stride(f"DecoderSpec {self.name!r}: out_stride", self.out_stride)
        for flag in ("makes_logits", "upsamples_learned"):
            if not isinstance(getattr(self, flag), bool):
                raise RegistrationError(f"Decoder {self.name!r}: {flag} must be True or False, found {getattr(self, flag)!r}.")
        if not isinstance(self.needs, Needs) and not callable(self.needs):
            raise RegistrationError(f"Decoder {self.name!r}: `needs` must be a zoo.Needs or a function; found {self.needs!r}.")

    def needs_for(self, options: dict[str, Any]) -> Needs:
        """Return the needs of the decoder with these options."""
        if isinstance(self.needs, Needs):
            return self.needs
        needs = self.needs(**options)
        if not isinstance(needs, Needs):
            raise RegistrationError(f"Decoder {self.name!r}: the function `needs` must return a zoo.Needs; found {needs!r}.")
        return needs


Spec: TypeAlias = EncoderSpec | DecoderSpec


def is_factory_path(value: object) -> bool:
    """Return whether a value is text of the form 'package.module:name'."""
    return isinstance(value, str) and _FACTORY.fullmatch(value) is not None


def import_factory(factory: Factory) -> Any:
    """Return a factory as a callable: import it if it is a path. Errors of the import pass through unchanged."""
    if not isinstance(factory, str):
        return factory
    module_name, _, path = factory.partition(":")
    target: Any = importlib.import_module(module_name)
    for name in path.split("."):
        target = getattr(target, name)
    return target


def _is_finite_number(value: object) -> bool:
    """Return whether a value is a finite number that fits into a float. True and False do not count as numbers."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


def _check_name_and_factory(kind: str, name: object, factory: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{kind}: a name may contain only letters, digits, '_', '.', '+' and '-', and must begin with a letter or digit; "
            f"found {name!r}."
        )
    if isinstance(factory, str):
        if not is_factory_path(factory):
            raise RegistrationError(f"{kind} {name!r}: a factory must be written 'package.module:name'; found {factory!r}.")
    elif not callable(factory):
        raise RegistrationError(f"{kind} {name!r}: a factory must be a callable or 'package.module:name'; found {factory!r}.")


def _check_stride(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RegistrationError(f"{what} must be a whole number of at least 1; found {value!r}.")


def _check_tuples(kind: str, name: str, **given: object) -> None:
    for field_name, value in given.items():
        if value is not None and not isinstance(value, tuple):
            raise RegistrationError(f"{kind} {name!r}: {field_name} must be a tuple; found {value!r}.")


def _check_kinds(kind: str, spec: EncoderSpec | DecoderSpec) -> None:
    """Check the types of attributes that encoder specs and decoder specs have in common."""
    for name in ("source", "license"):
        if not isinstance(getattr(spec, name), str):
            raise RegistrationError(f"{kind} {spec.name!r}: {name} must be text; found {getattr(spec, name)!r:.80}.")
    if not isinstance(spec.constants, Mapping) or not all(isinstance(name, str) for name in spec.constants):
        raise RegistrationError(f"{kind} {spec.name!r}: constants must map names to values; found {spec.constants!r:.80}.")
    if not all(isinstance(option, Option) for option in spec.options or ()):
        raise RegistrationError(
            f"{kind} {spec.name!r}: options must be a tuple of zoo.plugin.Option objects; found {spec.options!r:.80}."
        )
