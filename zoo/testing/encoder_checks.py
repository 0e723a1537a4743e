"""Checks for encoders only: the requested maps have the declared channels and strides, and no parameter is unused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.common.format_names import format_names
from zoo.errors import ZooError
from zoo.model.probing.measurement import META_SIZES, has_sides, layout_of
from zoo.model.probing.pruning import unused_parameters
from zoo.registry.image_sizes import Size
from zoo.registry.pyramid import FeatureMap
from zoo.testing.encoder_subject import EncoderSubject
from zoo.testing.report import Finding, NotApplicable
from zoo.testing.snapshots import same
from zoo.testing.subject import on_meta_or_real
from zoo.testing.surroundings import make_generator

__all__ = ["ENCODER_CHECKS"]

ODD_SIZE = (227, 165)
"""A portrait size with odd sides. All other sizes in the checks are landscape."""


def channels_are_as_declared(subject: EncoderSubject) -> None:
    """Each map has the number of channels that the pyramid declares."""
    size = _two_sizes(subject)[0]
    for fact, tensor in _pair_with_facts(subject, _maps(subject, size)):
        if tensor.ndim != 4 or tensor.shape[1] != fact.channels:
            raise Finding(
                expected=f"{fact.channels} channels on the second axis of {fact.name}",
                found=f"the shape {tuple(tensor.shape)} for an image of {_text(size)}",
                remedy="correct the channels in the spec's pyramid, or return maps of shape (N, C, H, W)",
            )


def strides_are_as_declared(subject: EncoderSubject) -> None:
    """Each map has the stride that the pyramid declares, to the nearest power of two."""
    small, large = _two_sizes(subject)
    firsts = _maps(subject, small)
    seconds = firsts if large is None else _maps(subject, large)
    for (fact, first), (_, second) in zip(_pair_with_facts(subject, firsts), _pair_with_facts(subject, seconds), strict=True):
        layout = None if large is None else layout_of(first, second, (small, large))
        # With only one size, or a map whose size is only roughly proportional to the image's, the areas determine the stride.
        found = math.sqrt(math.prod(large or small) / math.prod(second.shape[2:])) if layout is None else layout.stride
        if abs(math.log2(found / fact.stride)) > 0.6:
            raise Finding(
                expected=f"{fact.name} at stride {fact.stride:g}",
                found=f"stride {found:.3g}: {tuple(second.shape)} for an image of {_text(large or small)}",
                remedy="correct the stride in the spec's pyramid, or return a map of this stride",
            )


def maps_are_nchw(subject: EncoderSubject) -> None:
    """Each map is (N, C, H, W): if the height and width of the image change, the last two axes of the map change."""
    small, large = _two_sizes(subject)
    if large is None:
        raise NotApplicable(
            f"the encoder accepts only images of {_text(small)}; telling NCHW from NHWC requires maps at two image sizes"
        )
    for (fact, first), (_, second) in zip(
        _pair_with_facts(subject, _maps(subject, small)), _pair_with_facts(subject, _maps(subject, large)), strict=True
    ):
        layout = layout_of(first, second, (small, large))
        if layout is not None and layout.channels_last:
            raise Finding(
                expected=f"{fact.name} as (N, C, H, W)",
                found=f"(N, H, W, C): {tuple(first.shape)} for {_text(small)}, {tuple(second.shape)} for {_text(large)}",
                remedy="return x.permute(0, 3, 1, 2)",
            )


def odd_sizes_work(subject: EncoderSubject) -> None:
    """For an image with values (not on the meta device), each map has the size that the map's stride implies.

    The image is taller than wide and has odd sides, if the spec allows this. A meta tensor would not suffice, because on the
    meta device an index is never out of bounds.
    """
    size = subject.sizes.holding(ODD_SIZE) if subject.sizes.fixed is None or subject.sizes.adapts else subject.size
    maps = subject.shapes(subject.build(size=size).eval(), size)
    for fact, tensor in _pair_with_facts(subject, maps):
        is_transposed = tensor.ndim == 4 and size[0] > size[1] and tensor.shape[2] < tensor.shape[3]
        if tensor.ndim != 4 or is_transposed or not has_sides(tensor, size, fact.stride):
            height, width = (length / fact.stride for length in size)
            raise Finding(
                expected=f"{fact.name} of about {height:.4g} x {width:.4g} for an image of {_text(size)}",
                found=f"the shape {tuple(tensor.shape)}",
                remedy="compute every size from the image, or declare the sizes that work (sizes=zoo.plugin.ImageSizes(...))",
            )


def each_map_comes_alone(subject: EncoderSubject) -> None:
    """If only some maps are requested, only these are returned, with the same values as when all maps are requested."""
    whole = subject.module
    state = whole.state_dict()
    with torch.no_grad():
        given = subject.outputs(whole, subject.inputs())
    _check_count(len(given), subject.names)
    everything = dict(zip(subject.names, given, strict=True))
    for maps in _selections(subject.names):

        def compare(_: str, maps: tuple[str, ...] = maps) -> None:
            part = subject.build(maps=maps).eval()
            own = part.state_dict()
            common = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
            part.load_state_dict(common, strict=False, assign=True)  # assign: modules on meta have no data to overwrite
            with torch.no_grad(), torch.device("cpu"):
                found = subject.outputs(part, subject.inputs())
            _check_count(len(found), maps)
            for name, tensor in zip(maps, found, strict=True):
                _check_alike(name, maps, tensor, everything[name], weights_too=len(common) == len(own))

        on_meta_or_real(compare)


def no_parameter_is_unused(subject: EncoderSubject) -> None:
    """Whichever maps are requested, every parameter of the encoder is used by at least one of these maps."""
    for maps in (subject.names, *_selections(subject.names)):

        def found(device: str, maps: tuple[str, ...] = maps) -> set[str]:
            unused: set[str] | None = None
            module = subject.build(maps=maps)
            for training in (False, True):
                with torch.enable_grad():
                    image = torch.zeros(2, 3, *subject.size, device=device)
                    names = set(unused_parameters(module, subject.outputs(module.train(training), [image])))
                unused = names if unused is None else unused & names
                if not unused:
                    break
            return unused or set()

        if unused := sorted(on_meta_or_real(found)):
            raise Finding(
                expected=f"gradients of the maps {format_names(maps)} that reach every parameter",
                found=f"unused: {format_names(unused)}",
                remedy="build no stages, norms and classifiers that no requested map uses",
            )


def takes_other_input_channels(subject: EncoderSubject) -> None:
    """The encoder can be built for images of 1 and of 4 channels as well, or raises a zoo.ZooError that says why not."""
    for in_channels in (1, 4):

        def maps(_: str, in_channels: int = in_channels) -> list[Tensor]:
            module = subject.build(in_channels=in_channels).eval()
            return subject.shapes(module, subject.size, in_channels=in_channels)

        try:
            found = on_meta_or_real(maps)
        except ZooError as refusal:
            raise NotApplicable(f"in_channels={in_channels} is refused: {refusal}") from refusal
        for fact, tensor in _pair_with_facts(subject, found):
            if tensor.ndim != 4 or tensor.shape[1] != fact.channels:
                raise Finding(
                    expected=f"{fact} with in_channels={in_channels}",
                    found=f"the shape {tuple(tensor.shape)}",
                    remedy="let in_channels change only the first layer",
                )


def model_gives_logits(subject: EncoderSubject) -> None:
    """A model that `zoo.build` makes with the encoder returns logits of the image's size."""
    model = subject.whole
    size = (subject.size[0] - 3, subject.size[1] - 1)
    with torch.no_grad():
        found = tuple(model(torch.rand(1, 3, *size, generator=make_generator(0))).shape)
    if found != (1, 3, *size):
        raise Finding(
            expected=f"logits of shape {(1, 3, *size)} for 3 classes",
            found=str(found),
            remedy="return the requested maps, fine to coarse",
        )


def _two_sizes(subject: EncoderSubject) -> tuple[Size, Size | None]:
    """Return two image sizes at which to check the maps; the second is None if the encoder accepts only one size.

    If the maps can be computed on the meta device, the sizes are large, since only shapes are computed.
    """
    takes_them = not subject.is_of_one_size and tuple(map(subject.taken, META_SIZES[0])) == META_SIZES[0]
    if takes_them and all(tensor.is_meta for tensor in _maps(subject, subject.size)):
        return META_SIZES[0]
    return subject.size, subject.other_size


def _maps(subject: EncoderSubject, size: Size) -> list[Tensor]:
    """Return the maps for an image of this size, on the meta device if possible. They are computed once for each size."""
    if size not in subject.seen:
        subject.seen[size] = on_meta_or_real(lambda _: subject.shapes(subject.build(size=size).eval(), size))
    return subject.seen[size]


def _pair_with_facts(subject: EncoderSubject, maps: list[Tensor]) -> list[tuple[FeatureMap, Tensor]]:
    _check_count(len(maps), subject.names)
    return list(zip(subject.pyramid, maps, strict=True))


def _check_count(found: int, names: Sequence[str]) -> None:
    if found != len(names):
        raise Finding(
            expected=f"{len(names)} maps, the requested ones: {format_names(names)}",
            found=f"{found} maps",
            remedy="return one tensor for each name in maps=, and no other tensor",
        )


def _check_alike(name: str, maps: Sequence[str], found: Tensor, expected: Tensor, *, weights_too: bool) -> None:
    """Check that a map does not depend on which other maps are requested.

    `found` is the map of an encoder that is built for `maps` only, and `expected` is that of an encoder that is built for all
    maps. The shapes are compared. If `weights_too`, both encoders have the same weights, and the values are compared as well.
    """
    is_alike = found.shape == expected.shape and not found.is_meta
    if not is_alike or (weights_too and not _close(found, expected)):
        raise Finding(
            expected=f"{name} for the requested maps {format_names(maps)} to be the same as when all maps are requested",
            found="different values" if is_alike else f"the shapes {tuple(found.shape)} and {tuple(expected.shape)}",
            remedy="return the maps by name, in the order of maps=",
        )


def _selections(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return selections of the maps: the finest, the coarsest, and the finest with a middle one.

    A selection of all maps is left out, unless there is only one map.
    """
    if len(names) == 1:
        return [names]
    chosen = [names[:1], names[-1:], (names[0], names[max(1, len(names) // 2)])]
    return list(dict.fromkeys(entry for entry in chosen if entry != names))


def _close(one: Tensor, other: Tensor) -> bool:
    return same(one, other) or torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def _text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


ENCODER_CHECKS = (
    channels_are_as_declared,
    strides_are_as_declared,
    maps_are_nchw,
    odd_sizes_work,
    each_map_comes_alone,
    no_parameter_is_unused,
    takes_other_input_channels,
    model_gives_logits,
)
