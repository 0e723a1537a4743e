"""Checks for decoders only: for any valid pyramid, the output is one map of the declared channels and stride."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.common.format_names import format_names
from zoo.errors import NegotiationError
from zoo.model.outputs import describe
from zoo.model.probing.measurement import layout_of
from zoo.model.probing.pruning import unused_parameters
from zoo.pairing.plan import Plan, Route
from zoo.registry.image_sizes import Size
from zoo.registry.pyramid import FeatureMap
from zoo.testing.decoder_subject import CLASSES, SIZE, DecoderSubject
from zoo.testing.report import Finding, NotApplicable
from zoo.testing.subject import on_meta_or_real
from zoo.testing.surroundings import import_library, make_generator, seed
from zoo.testing.synthetic import plans

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["DECODER_CHECKS"]

WHOLE_SIZES = ((128, 256), (256, 384))
DECODERS_COARSEST_LEVEL = 5
"""The level (log2 of the stride) of the coarsest map that a decoder may compute internally if all its input maps are finer."""
ODD_SIZES = ((65, 97), (301, 225), (37, 53))
MAX_EXAMPLES = 6


def any_valid_pyramid_works(subject: DecoderSubject) -> None:
    """The decoder works for any pyramid that meets its needs, and returns a map of the declared channels and stride."""
    hypothesis: Any = import_library("hypothesis")
    sizes = (WHOLE_SIZES[0], ODD_SIZES[0])

    @hypothesis.settings(  # type: ignore[untyped-decorator]
        max_examples=MAX_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
        print_blob=False,
    )
    @hypothesis.given(_plans(subject), hypothesis.strategies.sampled_from(sizes))  # type: ignore[untyped-decorator]
    def check_drawn(plan: Plan, size: Size) -> None:
        check(plan, size)

    def check(plan: Plan, size: Size) -> None:
        try:
            _check_shape(subject, plan, size)
        except Finding as finding:
            maps = ", ".join(map(str, plan.pyramid))
            finding.found += f"; for the pyramid {maps} and an image of {size[0]} x {size[1]}"
            raise

    check_drawn()  # draws the channels; the strides that it draws depend on hypothesis's version
    for plan, size in itertools.product(subject.plans, sizes):
        check(plan, size)


def out_channels_are_as_declared(subject: DecoderSubject) -> None:
    """The output has `out_channels` channels, and the coarser maps of `forward_aux` have the channels in `aux_channels`."""
    for plan in subject.plans[:3]:
        declared, shape = _declared_and_shape(subject, plan, "out_channels", SIZE)
        if shape[1] != declared:
            raise Finding(
                expected=f"{declared} channels (its out_channels) on the second axis of the output",
                found=f"{shape[1]} channels, in the shape {shape}",
                remedy="set self.out_channels in __init__ to the channels that forward returns",
            )
    _check_coarser_maps(subject)


def out_stride_is_as_declared(subject: DecoderSubject) -> None:
    """`out_stride` is the number of image pixels that an output pixel spans along each axis.

    If the spec also declares an `out_stride`, it equals that of the module.
    """
    for plan in subject.plans[:4]:
        for size in WHOLE_SIZES:
            declared, shape = _declared_and_shape(subject, plan, "out_stride", size)
            if not declared:
                raise NotApplicable("the decoder makes the logits itself and declares no out_stride")
            if not all(_is_near(length, whole, plan, declared) for length, whole in zip(shape[2:], size, strict=True)):
                raise Finding(
                    expected=f"an output of about {size[0] / declared:g} x {size[1] / declared:g}, at out_stride {declared:g}, "
                    f"for an image of {size[0]} x {size[1]}",
                    found=f"the shape {shape}",
                    remedy="set self.out_stride in __init__ to the stride of forward's output, often pyramid[0].stride",
                )
        stated = subject.entry.spec.out_stride
        if stated is not None and stated != declared:
            raise Finding(
                expected=f"an out_stride of {stated}, as the spec declares",
                found=f"{declared:g}",
                remedy="correct one of the two, or leave out_stride= out of the spec if it depends on the pyramid",
            )


def output_is_nchw(subject: DecoderSubject) -> None:
    """The output is (N, C, H, W): if the height and width of the image change, the last two axes of the output change."""
    plan = subject.plans[0]

    def shapes(_: str) -> list[tuple[int, ...]]:
        module = subject.build(plan=plan).eval()
        return [subject.shape(module, plan, size) for size in WHOLE_SIZES]

    first, second = (torch.empty(shape, device="meta") for shape in on_meta_or_real(shapes))
    layout = layout_of(first, second, WHOLE_SIZES)
    seen = f"{tuple(first.shape)} and {tuple(second.shape)} for images of {WHOLE_SIZES[0]} and {WHOLE_SIZES[1]}"
    if layout is not None and layout.channels_last:
        raise Finding(
            expected="the output as (N, C, H, W)",
            found=f"(N, H, W, C): {seen}",
            remedy="return x.permute(0, 3, 1, 2)",
        )
    if layout is None:
        raise Finding(
            expected="an output whose last two axes grow with the image",
            found=seen,
            remedy="return a map (N, C, H, W) whose size follows from the input maps, not one of a fixed size",
        )


def odd_sizes_work(subject: DecoderSubject) -> None:
    """The decoder works for non-square images, and for maps that are not exactly half the size of the next finer one."""
    for size in ODD_SIZES:
        for plan in subject.plans[:2]:
            if size == ODD_SIZES[0]:
                _check_shape_of(subject, subject.build(plan=plan).eval(), plan, size)
            else:
                _check_shape(subject, plan, size)


def every_map_matters(subject: DecoderSubject) -> None:
    """The output depends on each map of the pyramid, so no map is computed in vain."""
    for plan in subject.plans[:2]:
        module = subject.build(plan=plan).eval()
        reached = [False] * len(plan.routes)
        for number in range(3):
            given = [entry.requires_grad_() for entry in subject.features(plan, seed=number)]
            output = subject.outputs(module, given)[0]
            if output.requires_grad:
                weights = torch.randn(output.shape, generator=make_generator(number))
                gradients = torch.autograd.grad((output * weights).sum(), given, allow_unused=True)
                reached = [was or _is_felt(gradient) for was, gradient in zip(reached, gradients, strict=True)]
            if all(reached):
                break
        if ignored := [str(entry) for entry, was in zip(plan.pyramid, reached, strict=True) if not was]:
            raise Finding(
                expected=f"a gradient for each of the {len(reached)} maps",
                found=f"none for {format_names(ignored)}, on which the output does not depend",
                remedy="use every map that forward receives, or declare the maps to use in the needs (strides=, max_levels=)",
            )


def no_parameter_is_unused(subject: DecoderSubject) -> None:
    """The output's gradients reach each parameter in train mode, in eval mode, or in both."""
    unused: set[str] | None = None
    for training in (True, False):
        module = subject.build().train(training)
        output: Tensor = subject.outputs(module, subject.inputs())[0]
        make_head = getattr(module, "make_head", None)
        if make_head is not None:
            output = make_head(3)(output)
        names = set(unused_parameters(module, [output]))
        unused = names if unused is None else unused & names
    if unused:
        raise Finding(
            expected="gradients that reach every parameter",
            found=f"unused: {format_names(sorted(unused))}",
            remedy="build no layer that forward does not call; unused parameters cost memory and stop distributed training",
        )


def model_gives_logits(subject: DecoderSubject) -> None:
    """A model that `zoo.build` makes with the decoder returns logits of the image's size."""
    for plan in subject.plans[:2]:
        model = subject.model(classes=3, plan=plan).eval()
        for size in (SIZE, ODD_SIZES[0]):
            with torch.no_grad():
                found = tuple(model(torch.rand(2, 3, *size, generator=make_generator(0))).shape)
            if found != (2, 3, *size):
                raise Finding(
                    expected=f"logits of shape {(2, 3, *size)} for 3 classes",
                    found=str(found),
                    remedy="return a map (N, out_channels, h, w), and let the head make the logits",
                )


def make_head_gives_classes(subject: DecoderSubject) -> None:
    """The head from `make_head(classes)`, or the decoder if it makes the logits itself, returns one channel for each class."""
    module = subject.module
    if subject.entry.spec.makes_logits:
        _check_logits(subject)
        return
    make_head = getattr(module, "make_head", None)
    if make_head is None:
        raise NotApplicable("the decoder has no make_head, so its head is a 1x1 convolution")
    with torch.no_grad():
        output = subject.outputs(module, subject.inputs())[0]
        for classes in (1, 5):
            seed(0)
            head = make_head(classes)
            logits = head.eval()(output) if isinstance(head, nn.Module) else head
            found = tuple(logits.shape) if isinstance(logits, Tensor) else repr(logits)
            if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[:2] != (2, classes):
                raise Finding(
                    expected=f"make_head({classes}) returns a module whose output is (N, {classes}, h, w)",
                    found=str(found),
                    remedy="let the head's last layer have `classes` channels",
                )


def _check_coarser_maps(subject: DecoderSubject) -> None:
    """Check that `forward_aux` returns the same map as `forward`, and one coarser map for each entry of `aux_channels`."""
    widths = tuple(getattr(subject.module, "aux_channels", ()))
    if not widths and not hasattr(subject.module, "forward_aux"):
        return
    for module in (subject.module, subject.trainee):
        with torch.no_grad():
            expected = subject.outputs(module, subject.inputs())[0]
            seed(0)
            forward_aux: Any = getattr(module, "forward_aux", None)
            found: Any = forward_aux(subject.inputs()) if forward_aux is not None else None
        is_pair = isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[1], tuple | list)
        maps = [found[0], *found[1]] if is_pair else []
        channels = [entry.shape[1] if isinstance(entry, Tensor) and entry.ndim == 4 else None for entry in maps]
        is_alike = channels == [expected.shape[1], *widths] and maps[0].shape == expected.shape
        if not is_alike or not (module.training or torch.equal(maps[0], expected)):  # dropout varies in train mode
            mode = " in train mode" if module.training else ""
            raise Finding(
                expected=f"forward_aux(features) returns forward's map and a list of maps with {list(widths)} channels{mode}",
                found=f"maps with {channels[:1]} and {channels[1:]} channels" if is_pair else describe(found),
                remedy="set self.aux_channels to the channels of the coarser maps, finest first, and return all of these maps",
            )


def _check_logits(subject: DecoderSubject) -> None:
    for classes in (1, 5):
        with torch.no_grad():
            found = tuple(subject.outputs(subject.build(classes=classes).eval(), subject.inputs())[0].shape)
        if found[:2] != (2, classes):
            raise Finding(
                expected=f"logits of shape (2, {classes}, h, w) for classes={classes}, since the spec declares makes_logits",
                found=str(found),
                remedy="let the last layer have `classes` channels",
            )


def _plans(subject: DecoderSubject) -> SearchStrategy[Plan]:
    try:
        return plans(subject.needs)
    except NegotiationError as cause:
        raise Finding(
            expected="needs that some pyramid meets",
            found=f"{subject.needs}, which no synthetic pyramid meets",
            remedy="loosen the needs; min_levels, max_levels and strides must not contradict each other",
        ) from cause


def _check_shape(subject: DecoderSubject, plan: Plan, size: Size) -> None:
    """Build the decoder for a plan, run it (on the meta device if possible), and check the shape of its output."""

    def attempt(_: str) -> None:
        _check_shape_of(subject, subject.build(plan=plan).eval(), plan, size)

    on_meta_or_real(attempt)


def _check_shape_of(subject: DecoderSubject, module: nn.Module, plan: Plan, size: Size) -> None:
    shape = subject.shape(module, plan, size)
    channels, stride = (_declared(subject, module, name) for name in ("out_channels", "out_stride"))
    near = [stride == 0 or _is_near(length, whole, plan, stride) for length, whole in zip(shape[2:], size, strict=False)]
    if shape[:2] != (2, channels) or not all(near):
        lengths = [f"about {length / stride:g}" if stride else "any length" for length in size]
        raise Finding(
            expected=f"(2, {channels:g}, {', '.join(lengths)}) for an image of {size}",
            found=str(shape),
            remedy="take every size from the maps (F.interpolate(x, size=skip.shape[-2:])), and declare what forward returns",
        )


def _declared_and_shape(subject: DecoderSubject, plan: Plan, name: str, size: Size) -> tuple[float, tuple[int, ...]]:
    def attempt(_: str) -> tuple[float, tuple[int, ...]]:
        module = subject.build(plan=plan).eval()
        return _declared(subject, module, name), subject.shape(module, plan, size)

    return on_meta_or_real(attempt)


def _declared(subject: DecoderSubject, module: nn.Module, name: str) -> float:
    """Return the attribute `name` of a decoder: "out_channels" or "out_stride".

    A decoder that makes the logits itself may leave out both attributes. `out_channels` is then the number of classes, and
    `out_stride` counts as 0. Otherwise, raise a `Finding` if the attribute is missing or is not a number of at least 1.
    """
    undeclared = {"out_channels": CLASSES, "out_stride": 0}[name] if subject.entry.spec.makes_logits else None
    value = getattr(module, name, undeclared)
    if value == undeclared == 0:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise Finding(
            expected=f"a number of at least 1 as {name}",
            found=repr(value),
            remedy=f"set self.{name} in __init__",
        )
    return value


def _is_near(found: int, image: int, plan: Plan, stride: float) -> bool:
    """Return whether a length is the image's side divided by the stride, allowing for the rounding of the maps' sizes."""
    # A map that an adapter upsamples was rounded at the coarser stride of its source, and a decoder such as DPT makes a map of
    # stride 32 from finer ones. `out_stride_is_as_declared` checks exact sizes for images that no such rounding changes.
    coarsest = max(DECODERS_COARSEST_LEVEL, *(max(route.source.level, route.output.level) for route in plan.routes))
    odd = 2 ** max(abs(math.log2(route.output.stride) - route.output.level) for route in plan.routes)
    least = math.floor(image / stride / odd) - 1
    most = 1 + max(
        math.ceil(_largest_length(route, image, coarsest) * _largest_scale(route.output, stride)) for route in plan.routes
    )
    return bool(max(1, least) <= found <= most)


def _largest_length(route: Route, image: int, coarsest: int) -> int:
    """Return the largest length of a decoder's map, for a side of the image.

    The length may be rounded up when an adapter makes the map from its source, and when the decoder pools the map down to the
    level `coarsest` and upsamples it again.
    """
    source = math.ceil(image / route.source.stride)
    length = math.ceil(source * route.source.stride / route.output.stride)
    whole: int = 2 ** max(0, coarsest - route.output.level)
    return math.ceil(length / whole) * whole


def _largest_scale(feature_map: FeatureMap, stride: float) -> float:
    """Return the largest factor by which a decoder may lengthen a map for an output of this stride.

    A decoder that doubles the sizes turns a map of stride 7 into one of stride 1 that is 8 times as long.
    """
    return max(2.0 ** (feature_map.level - round(math.log2(stride))), feature_map.stride / stride)


def _is_felt(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


DECODER_CHECKS = (
    any_valid_pyramid_works,
    out_channels_are_as_declared,
    out_stride_is_as_declared,
    output_is_nchw,
    odd_sizes_work,
    every_map_matters,
    no_parameter_is_unused,
    model_gives_logits,
    make_head_gives_classes,
)
