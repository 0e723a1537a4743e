"""Register encoders and decoders at run time, by a call or a decorator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Required, TypedDict, TypeVar, Unpack, overload

from zoo.errors import RegistrationError
from zoo.registry.image_sizes import ImageSizes
from zoo.registry.pyramid import FeatureMap, Needs, Pyramid, check_pyramid
from zoo.registry.registry import default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec, Factory, Option

__all__ = ["register_decoder", "register_encoder"]

_F = TypeVar("_F", bound="str | Callable[..., Any]")


class _DecoderFacts(TypedDict, total=False):
    """The keywords of `register_decoder`, for both of its overloads."""

    needs: Needs | Callable[..., Needs] | None
    options: Sequence[Option] | None
    out_stride: int | None
    makes_logits: bool | None
    source: str
    license: str
    replace: bool


class _EncoderFacts(TypedDict, total=False):
    """The keywords of `register_encoder`, for both of its overloads."""

    pyramid: Required[Pyramid | Sequence[FeatureMap] | Callable[..., Pyramid]]
    sizes: ImageSizes | Callable[..., ImageSizes]
    output_strides: tuple[int, ...] | list[int] | Callable[..., tuple[int, ...]]
    options: Sequence[Option] | None
    weights: Sequence[str]
    source: str
    license: str
    weights_license: str | Callable[[str], str]
    replace: bool


@overload
def register_decoder(name: str, factory: _F, **facts: Unpack[_DecoderFacts]) -> _F: ...
@overload
def register_decoder(name: str, factory: None = None, **facts: Unpack[_DecoderFacts]) -> Callable[[_F], _F]: ...
def register_decoder(
    name: str,
    factory: Factory | None = None,
    *,
    needs: Needs | Callable[..., Needs] | None = None,
    options: Sequence[Option] | None = None,
    out_stride: int | None = None,
    makes_logits: bool | None = None,
    source: str = "",
    license: str = "",
    replace: bool = False,
) -> Any:
    """Register a decoder for this process: a call, or a decorator where `factory` is left out.

    Args:
        name: the bare name; the full id becomes `local:name`.
        factory: a class or function called as `factory(pyramid, **options)`, or `package.module:name` of one. What it
            makes has `out_channels` and `out_stride`; its `forward(features)` takes a list of maps and returns one.
        needs: what it requires of a pyramid; by default the factory's own attribute `needs`, else every pyramid is accepted.
        options: the keywords it takes, for `zoo show`.
        out_stride: the stride of the map it gives, where that is always the same, for `zoo explain`.
        makes_logits: whether it makes the logits itself: the factory is then also called with `classes=`, and no head is
            added. By default the factory's own attribute `makes_logits`, else False.
        source: paper or repository.
        license: of the code, as an SPDX id.
        replace: whether to replace another one registered under the name.

    Returns:
        The factory, unchanged.

    Raises:
        RegistrationError: the name is taken, or something of the wrong kind was given.
    """

    def register(factory: Factory) -> Factory:
        factory_needs = needs if needs is not None else getattr(factory, "needs", Needs())
        own_logits = makes_logits if makes_logits is not None else getattr(factory, "makes_logits", False)
        spec = DecoderSpec(
            name=name,
            factory=factory,
            needs=factory_needs,
            out_stride=out_stride,
            makes_logits=own_logits,
            options=None if options is None else tuple(options),
            source=source,
            license=license,
        )
        default_registry().register("decoder", spec, replace=replace)
        return factory

    return _call_or_decorator(name, factory, register)


@overload
def register_encoder(name: str, factory: _F, **facts: Unpack[_EncoderFacts]) -> _F: ...
@overload
def register_encoder(name: str, factory: None = None, **facts: Unpack[_EncoderFacts]) -> Callable[[_F], _F]: ...
def register_encoder(
    name: str,
    factory: Factory | None = None,
    *,
    pyramid: Pyramid | Sequence[FeatureMap] | Callable[..., Pyramid],
    sizes: ImageSizes | Callable[..., ImageSizes] = ImageSizes(),  # noqa: B008 - a frozen fact
    output_strides: tuple[int, ...] | list[int] | Callable[..., tuple[int, ...]] = (),
    options: Sequence[Option] | None = None,
    weights: Sequence[str] = (),
    source: str = "",
    license: str = "",
    weights_license: str | Callable[[str], str] = "",
    replace: bool = False,
) -> Any:
    """Register an encoder for this process: a call, or a decorator where `factory` is left out.

    Args:
        name: the bare name; the full id becomes `local:name`.
        factory: called as `factory(maps=(names, ...), in_channels=..., weights=..., **options)`, or
            `package.module:name` of such. What it makes returns just those maps, NCHW, fine to coarse.
        pyramid: every map it can give, or a torch-free function of its options that returns them.
        sizes: which image sizes it takes, or a torch-free function of its options; by default any.
        output_strides: what its option `output_stride` can ask for, where it can dilate.
        options: the keywords it takes besides, for `zoo show`.
        weights: the names that `weights=` accepts beside a file's path.
        source: paper or repository.
        license: of the code, as an SPDX id.
        weights_license: of the weights: one text, or a torch-free function that returns it for one of `weights`.
        replace: whether to replace another one registered under the name.

    Returns:
        The factory, unchanged.

    Raises:
        RegistrationError: the name is taken, or something of the wrong kind was given.
    """

    def register(factory: Factory) -> Factory:
        maps = pyramid if callable(pyramid) else check_pyramid(pyramid, f"Encoder {name!r}")
        spec = EncoderSpec(
            name=name,
            factory=factory,
            pyramid=maps,
            sizes=sizes,
            output_strides=tuple(output_strides) if isinstance(output_strides, list) else output_strides,
            options=None if options is None else tuple(options),
            weights=(weights,) if isinstance(weights, str) else tuple(weights),
            source=source,
            license=license,
            weights_license=weights_license,
        )
        default_registry().register("encoder", spec, replace=replace)
        return factory

    return _call_or_decorator(name, factory, register)


def _call_or_decorator(name: object, factory: Factory | None, register: Callable[[Factory], Factory]) -> Any:
    if not isinstance(name, str):
        raise RegistrationError(f"The first argument is the name to register under, a string; found {name!r}.")
    return register if factory is None else register(factory)
