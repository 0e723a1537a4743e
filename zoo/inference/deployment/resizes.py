"""Rewrite convolutions of upsampled maps, so that they are computed before the upsampling, at the lower resolution."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from zoo.inference.deployment.graph import Graph, argument, input_of, is_call, pair, shape_of
from zoo.inference.deployment.identities import INTERPOLATIONS
from zoo.inference.deployment.sites import Sites
from zoo.model.layers.upsampled_conv import low_resolution_kernel, pays_at_low_resolution

__all__ = ["add_border", "convolve_at_low_resolution", "merge_transposed", "project_before_resize", "spread_borders"]

ATEN = torch.ops.aten
CONV = ATEN.conv2d.default
TRANSPOSED = ATEN.conv_transpose2d.input
NEAREST = INTERPOLATIONS[:4]


def convolve_at_low_resolution(graph: Graph, sites: Sites) -> None:
    """Replace nearest x2 upsampling, a concatenation and a 3x3 convolution with a 4x4 transposed convolution.

    This is the low-resolution form of `zoo.plugin.UpsampledConv2d`, for modules that do not use that class. It takes 16
    multiplications for each pixel and pair of channels instead of 36, and does not create the upsampled map. The pass also
    applies without a concatenation. Small maps are skipped, since the larger kernel would make them slower.
    """
    for conv, weight, sources in _plain_convolutions(graph, 3):
        ups = [source for source in sources if is_call(source, *NEAREST)]
        if not ups:
            continue
        if not all(_is_doubled(up) for up in ups):
            sites.skip(conv, "the upsampling is not by two")
        elif not all(_pays(up) for up in ups):
            sites.skip(conv, "too few pixels for the larger kernel to be faster")
        else:
            low = {up: (input_of(up), low_resolution_kernel(part)) for up, part in _parts(sources, weight) if up in ups}
            _sum_of_parts(graph, conv, sources, weight, low)
            sites.apply(conv)


def merge_transposed(graph: Graph, sites: Sites) -> None:
    """Merge a 2x2 transposed convolution of stride 2 and a 3x3 convolution into a 4x4 transposed convolution.

    The pass applies if there is nothing but a concatenation between the two convolutions. The 3x3 convolution pads with zeros
    and not with the bias of the transposed convolution, so the outermost rows and columns are corrected.
    """
    for conv, weight, sources in _plain_convolutions(graph, 3):
        doubled = [source for source in sources if _is_doubling(graph, source)]
        if not doubled:
            continue
        if any(len(source.users) > 1 for source in doubled):
            sites.skip(conv, "the transposed convolution's output is used elsewhere as well")
        elif not all(_pays(source) for source in doubled):
            sites.skip(conv, "too few pixels for the larger kernel to be faster")
        elif not all(_merging_saves(source, weight.shape[0]) for source in doubled):
            sites.skip(conv, "the merged convolution would need more multiplications")
        else:
            _merge(graph, conv, sources, weight, doubled)
            sites.apply(conv)


def project_before_resize(graph: Graph, sites: Sites) -> None:
    """Move a 1x1 convolution before the upsampling whose output it receives, directly or through a concatenation.

    A resize combines pixels with weights that add up to one, and a 1x1 convolution combines channels. The two operations can
    therefore be swapped, and the convolution then computes fewer pixels.
    """
    for conv, weight, sources in _plain_convolutions(graph, 1):
        resized = [source for source in sources if is_call(source, *INTERPOLATIONS)]
        if not resized:
            continue
        resized = [source for source in resized if _places(source) > _places(input_of(source))]
        if not resized:
            sites.skip(conv, "the resize does not enlarge the map")
        elif any(weight.shape[0] > shape_of(source)[1] for source in resized):
            sites.skip(conv, "more channels than before would be resized")
        else:
            _project(graph, conv, sources, weight, resized)
            sites.apply(conv)


def add_border(map: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add values to the outermost rows and columns of a map, in place.

    Shapes: map (N, C, H, W), top and bottom (C, 1, W), left and right (C, H - 2, 1).
    """
    map[..., :1, :] += top
    map[..., -1:, :] += bottom
    map[..., 1:-1, :1] += left
    map[..., 1:-1, -1:] += right
    return map


def spread_borders(graph: Graph) -> None:
    """Replace each `add_border` with the addition of a whole map.

    Formats that cannot write in place would copy the map for each part of the border.
    """
    for node in graph.calls(add_border):
        source, *edges = node.args
        top, bottom, left, right = (graph.constant(each) for each in edges)
        width = shape_of(node)[3]
        middle = F.pad(left, (0, width - 1)) + F.pad(right, (width - 1, 0))  # type: ignore[arg-type]
        border = graph.add_constant(torch.cat([top, middle, bottom], dim=1), node)  # type: ignore[list-item]
        graph.replace(node, graph.add_call(ATEN.add.Tensor, (source, border), node, like=node))
    graph.tidy()


def _plain_convolutions(graph: Graph, kernel: int) -> Iterator[tuple[fx.Node, Tensor, list[fx.Node]]]:
    """Yield the convolutions for which `_plain_weight` returns a weight, each with its weight and its input maps."""
    for conv in graph.calls(CONV):
        weight = _plain_weight(graph, conv, kernel)
        if weight is not None:
            yield conv, weight, _sources(conv)


def _plain_weight(graph: Graph, conv: fx.Node, kernel: int) -> Tensor | None:
    """Return the weight of a plain convolution; None for any other convolution.

    A plain convolution has no stride, dilation or groups, and keeps the size of the map. Neither its weight nor its bias is
    computed from the image.
    """
    weight, bias = graph.constant(conv.args[1]), argument(conv, 2, "bias")
    if weight is None or (bias is not None and graph.constant(bias) is None):
        return None
    facts = [pair(argument(conv, *fact)) for fact in _SPATIAL]
    is_plain = facts == [(1, 1), (kernel // 2, kernel // 2), (1, 1)] and argument(conv, 6, "groups", 1) == 1
    return weight if is_plain and tuple(weight.shape[2:]) == (kernel, kernel) else None


_SPATIAL = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))


def _sources(conv: fx.Node) -> list[fx.Node]:
    """Return the input maps of a convolution.

    If its input is a concatenation of different maps, the result contains the concatenated maps that have channels. Otherwise,
    the result contains only the input itself.
    """
    seen = conv.args[0]
    assert isinstance(seen, fx.Node)
    if is_call(seen, ATEN.cat.default) and argument(seen, 1, "dim", 0) in (1, -3):
        maps: list[fx.Node] = list(seen.args[0])  # type: ignore[arg-type]
        joined = [each for each in maps if shape_of(each)[1]]
        if len(set(joined)) == len(joined):  # a concatenation that contains a map twice counts as one input
            return joined
    return [seen]


def _parts(sources: list[fx.Node], weight: Tensor) -> list[tuple[fx.Node, Tensor]]:
    """Return each input map with the slice of the convolution's weight that is applied to it."""
    return list(zip(sources, torch.split(weight, [shape_of(source)[1] for source in sources], dim=1), strict=True))


def _places(node: fx.Node) -> int:
    return shape_of(node)[2] * shape_of(node)[3]


def _is_doubled(up: fx.Node) -> bool:
    return shape_of(up)[2:] == tuple(2 * side for side in shape_of(input_of(up))[2:])


def _pays(up: fx.Node) -> bool:
    batch, _, height, width = shape_of(input_of(up))
    return pays_at_low_resolution(batch, height, width, device=up.meta["val"].device, is_made=True)


def _is_doubling(graph: Graph, node: fx.Node) -> bool:
    """Return whether a node is a 2x2 transposed convolution of stride 2, without padding, dilation or groups."""
    if not is_call(node, TRANSPOSED):
        return False
    weight, bias = graph.constant(node.args[1]), argument(node, 2, "bias")
    if weight is None or tuple(weight.shape[2:]) != (2, 2) or (bias is not None and graph.constant(bias) is None):
        return False
    if argument(node, 6, "groups", 1) != 1 or pair(argument(node, 3, "stride", 1)) != (2, 2):
        return False
    rest = [pair(argument(node, *fact)) for fact in _NO_MORE]
    return rest == [(0, 0), (0, 0), (1, 1)]


_NO_MORE = ((4, "padding", 0), (5, "output_padding", 0), (7, "dilation", 1))


def _merging_saves(transposed: fx.Node, out_channels: int) -> bool:
    width, joint = shape_of(input_of(transposed))[1], shape_of(transposed)[1]
    return 16 * width * out_channels < 4 * width * joint + 36 * joint * out_channels


def _merge(graph: Graph, conv: fx.Node, sources: list[fx.Node], weight: Tensor, doubled: list[fx.Node]) -> None:
    """Merge each 2x2 transposed convolution in `doubled` into the 3x3 convolution `conv`.

    The weight of `conv` has input channels for all `sources`. Each transposed convolution is merged with the part of the weight
    for its own output channels.
    """
    low, constant_map = {}, None
    for source, part in _parts(sources, weight):
        if source not in doubled:
            continue
        # A transposed convolution followed by a convolution equals one transposed convolution, whose kernel is the full
        # convolution of both kernels: 4x4 for 2x2 and 3x3. In double precision, the only rounding is the cast.
        first, bias = graph.constant(source.args[1]), graph.constant(argument(source, 2, "bias"))
        kernel = F.conv2d(first.double(), part.double(), padding=2).to(weight.dtype)  # type: ignore[union-attr]
        low[source] = (input_of(source), kernel)
        if bias is not None:
            # The 3x3 convolution pads with zeros, not with the bias. So the bias adds less in the outermost pixels.
            ones = bias.double().reshape(1, -1, 1, 1).expand(-1, -1, *shape_of(conv)[2:])
            added = F.conv2d(ones, part.double(), padding=1)[0]
            constant_map = added if constant_map is None else constant_map + added
    if constant_map is None:
        _sum_of_parts(graph, conv, sources, weight, low)
        return
    # In each channel, all pixels of the constant map inside the border are equal, so their value becomes a bias. Only the
    # difference at the border is added separately.
    inner = constant_map[:, 1, 1]
    border = (constant_map - inner.reshape(-1, 1, 1)).to(weight.dtype)
    edges = (border[:, :1], border[:, -1:], border[:, 1:-1, :1], border[:, 1:-1, -1:])
    _sum_of_parts(graph, conv, sources, weight, low, bias=inner, edges=edges)


def _sum_of_parts(
    graph: Graph,
    conv: fx.Node,
    sources: list[fx.Node],
    weight: Tensor,
    low: dict[fx.Node, tuple[fx.Node, Tensor]],
    bias: Tensor | None = None,
    edges: tuple[Tensor, ...] = (),
) -> None:
    """Replace a convolution with a sum: transposed convolutions of the maps in `low`, and a convolution of all other maps.

    Args:
        graph: the graph.
        conv: the convolution.
        sources: the input maps of the convolution.
        weight: the weight of the convolution.
        low: the input maps that are no longer computed, as keys. Each value has two parts: the map of half the resolution that
            takes the key's place, and the kernel of the transposed convolution that is applied to this map.
        bias: a bias that is added to the convolution's own bias.
        edges: values that are added to the outermost rows and columns, as arguments of `add_border`.
    """
    # The bias and the border are added to the first summand only.
    bias_node = argument(conv, 2, "bias")
    if bias is not None:
        held = graph.constant(bias_node)
        bias_node = graph.add_constant((bias if held is None else bias + held.double()).to(weight.dtype), conv)
    total: fx.Node | None = None
    for half, kernel in low.values():
        node = graph.add_constant(_like(kernel, weight), conv)
        made = graph.add_call(TRANSPOSED, (half, node, bias_node if total is None else None, [2, 2], [1, 1]), conv, like=conv)
        if total is None and edges:
            made = graph.add_call(
                add_border, (made, *(graph.add_constant(each.clone(), conv) for each in edges)), conv, like=conv
            )
        total = made if total is None else graph.add_call(ATEN.add.Tensor, (total, made), conv, like=conv)
    others = [(source, part) for source, part in _parts(sources, weight) if source not in low]
    if others:
        joined = others[0][0]
        if len(others) > 1:
            joined = graph.add_call(ATEN.cat.default, ([source for source, _ in others], 1), conv)
        node = graph.add_constant(_like(torch.cat([part for _, part in others], dim=1), weight), conv)
        made = graph.add_call(CONV, (joined, node, None, [1, 1], [1, 1]), conv, like=conv)
        total = graph.add_call(ATEN.add.Tensor, (total, made), conv, like=conv)
    assert total is not None
    graph.replace(conv, total)


def _project(graph: Graph, conv: fx.Node, sources: list[fx.Node], weight: Tensor, resized: list[fx.Node]) -> None:
    bias = argument(conv, 2, "bias")
    total: fx.Node | None = None
    others = [(source, part) for source, part in _parts(sources, weight) if source not in resized]
    if others:
        joined = others[0][0]
        if len(others) > 1:
            joined = graph.add_call(ATEN.cat.default, ([source for source, _ in others], 1), conv)
        node = graph.add_constant(torch.cat([part for _, part in others], dim=1), conv)
        total = graph.add_call(CONV, (joined, node, bias), conv, like=conv)
    for source, part in _parts(sources, weight):
        if source not in resized:
            continue
        node = graph.add_constant(part.contiguous(), conv)
        small = graph.add_call(CONV, (input_of(source), node, bias if total is None else None), conv)
        large = graph.add_call(source.target, (small, *source.args[1:]), conv, like=conv)  # type: ignore[arg-type]
        large.kwargs = source.kwargs
        total = large if total is None else graph.add_call(ATEN.add.Tensor, (total, large), conv, like=conv)
    assert total is not None
    graph.replace(conv, total)


def _like(kernel: Tensor, weight: Tensor) -> Tensor:
    """Return a kernel in the memory format of a weight."""
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return kernel.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
