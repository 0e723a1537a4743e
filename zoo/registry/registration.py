"""Register encoders and decoders at run time, with a call or a decorator."""

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
    """The keyword arguments of `register_decoder`, for both of its overloads."""

    needs: Needs | Callable[..., Needs] | None
    options: Sequence[Option] | None
    out_stride: int | None
    makes_logits: bool | None
    source: str
    license: str
    replace: bool


class _EncoderFacts(TypedDict, total=False):
    """The keyword arguments of `register_encoder`, for both of its overloads."""

    pyramid: Required[Pyramid | Sequence[FeatureMap] | Callable[..., Pyramid]]
    sizes: ImageSizes | Callable[..., ImageSizes]
    output_strides: tuple[int, ...] | list[int] | Callable[..., tuple[int, ...]]
    options: Sequence[Option] | None
    weights: Sequence[str]
    source: str
    license: str
    weights_license: str | Callable[[str], str]
    local_weights: Callable[[str], bool] | None
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
    """Register a decoder for this process. Without `factory`, return a decorator for the factory.

    Args:
        name: the bare name; the full id becomes `local:name`.
        factory: a class or function that is called as `factory(pyramid, **options)`, or its path `package.module:name`. The
            module that it returns must have the attributes `out_channels` and `out_stride`. The module's `forward(features)`
            must take a list of maps and return one map.
        needs: what the decoder requires of a pyramid. By default, this is the factory's attribute `needs`. If the factory has
            no such attribute, the decoder accepts every pyramid.
        options: the keyword arguments that the factory accepts, which `zoo show` lists. zoo refuses all other options. If
            None, zoo accepts every option, and the factory checks the options.
        out_stride: the stride of the map that the decoder returns, if this stride is the same for every pyramid. `zoo explain`
            shows it.
        makes_logits: whether the decoder computes the logits itself. If so, the factory is also called with `classes=`, and no
            head is added. By default, this is the factory's attribute `makes_logits`, or False without such an attribute.
        source: the paper or repository of the method.
        license: the license of the code, as an SPDX id.
        replace: whether to replace a decoder that is already registered under this name.

    Returns:
        The factory, unchanged.

    Raises:
        RegistrationError: the name is taken, or an argument is not valid.
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
    sizes: ImageSizes | Callable[..., ImageSizes] = ImageSizes(),  # noqa: B008 - immutable
    output_strides: tuple[int, ...] | list[int] | Callable[..., tuple[int, ...]] = (),
    options: Sequence[Option] | None = None,
    weights: Sequence[str] = (),
    source: str = "",
    license: str = "",
    weights_license: str | Callable[[str], str] = "",
    local_weights: Callable[[str], bool] | None = None,
    replace: bool = False,
) -> Any:
    """Register an encoder for this process. Without `factory`, return a decorator for the factory.

    Args:
        name: the bare name; the full id becomes `local:name`.
        factory: a class or function that is called as `factory(maps=(names, ...), in_channels=..., weights=..., **options)`,
            or its path `package.module:name`. It returns a module whose `forward(image)` must return exactly the maps of these
            names, NCHW, fine to coarse.
        pyramid: every map that the encoder can return, or a torch-free function of the encoder's options that returns them.
        sizes: the image sizes that the encoder accepts, or a torch-free function of the encoder's options that returns them.
            By default, it accepts every size.
        output_strides: the values that the encoder's option `output_stride` accepts, or a torch-free function of the encoder's
            options that returns them. Empty if the encoder cannot be dilated.
        options: the factory's own keyword arguments, which `zoo show` lists. zoo refuses all other options. If None, zoo
            accepts every option, and the factory checks the options.
        weights: the names that `weights=` accepts in addition to a file's path.
        source: the paper or repository of the architecture.
        license: the license of the code, as an SPDX id.
        weights_license: the license of the weights, or a torch-free function that returns the license for one of `weights`.
        local_weights: a torch-free function that returns whether the weights with one of the names in `weights` are on this
            machine, so that using them downloads nothing; None if this is not known.
        replace: whether to replace an encoder that is already registered under this name.

    Returns:
        The factory, unchanged.

    Raises:
        RegistrationError: the name is taken, or an argument is not valid.
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
            local_weights=local_weights,
        )
        default_registry().register("encoder", spec, replace=replace)
        return factory

    return _call_or_decorator(name, factory, register)


def _call_or_decorator(name: object, factory: Factory | None, register: Callable[[Factory], Factory]) -> Any:
    if not isinstance(name, str):
        raise RegistrationError(f"The first argument must be a string, the name to register under; found {name!r}.")
    return register if factory is None else register(factory)
