"""Make a plan from a pyramid and a decoder's needs, or report every reason why no plan is possible.

The functions have no side effects, and this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from zoo.errors import NegotiationError
from zoo.pairing.plan import Adapter, Plan, Route, Unused
from zoo.pairing.size_plan import plan_sizes
from zoo.registry.image_sizes import ImageSizes, Size
from zoo.registry.pyramid import FeatureMap, Needs, Pyramid

__all__ = ["negotiate"]

SYNTHESIZED = range(2, 6)
"""The levels of the pyramid that is made from a single stride, as in ViTDet: log2 of its strides 4, 8, 16 and 32."""
SYNTHESIZED_CHANNELS = 256
"""The number of channels of a synthesized map, as in ViTDet, unless the decoder requires another number."""


def negotiate(
    pyramid: Pyramid,
    needs: Needs,
    *,
    encoder: str,
    decoder: str,
    levels: int | None = None,
    adapters: str = "auto",
    sizes: ImageSizes = ImageSizes(),  # noqa: B008 - immutable
    image_size: Size | None = None,
    size_policy: str = "auto",
    in_channels: int = 3,
) -> Plan:
    """Match the maps of an encoder with the needs of a decoder.

    First, maps are selected. Maps that are finer than the decoder's `finest_stride` are left out. Of several maps with the same
    stride, only the last is kept, unless the decoder takes several maps of one stride. If `levels` is given, only the maps of
    the `levels` finest strides are kept. If the decoder needs exact strides, only the maps of these strides are kept. If the
    decoder has `max_levels`, only that many of the coarsest maps are kept (or evenly spaced maps, if all have the same stride).

    Then adapters are planned; `Adapter` explains their kinds. If the decoder requires a number of channels, "project" adapters
    convert the selected maps to this number. A "fill" adapter makes a map of a stride that is missing between two strides of
    the encoder. A "synthesize" adapter makes a map of a stride that is finer or coarser than all strides of the encoder. If the
    encoder has a single stride, "synthesize" adapters make the whole pyramid of strides 4 to 32. The input of an adapter for a
    missing stride is the map with the nearest stride, or the finer of two maps if their strides are equally near.

    Args:
        pyramid: every map that the encoder can return, fine to coarse.
        needs: the needs of the decoder.
        encoder: the encoder's id, for messages and the plan.
        decoder: the decoder's id, for messages and the plan.
        levels: how many strides to use, counted from the finest; None for all. But if the encoder has a single stride and the
            decoder takes several maps of one stride, this is the number of maps to use.
        adapters: "auto" to insert the adapters that the decoder needs, "none" to insert no adapters.
        sizes: the image sizes that the encoder accepts.
        image_size: (H, W) of the images; None if the size may vary.
        size_policy: "auto", "pad", "resize" or "error".
        in_channels: the number of channels of the image, for a decoder that also gets the image.

    Raises:
        NegotiationError: no plan is possible. The message names the encoder, the decoder and the maps, and says how to fix
            each problem.
        OptionError: the size policy refuses `image_size`.
    """
    choice = _choose(pyramid, needs, levels)
    routes = tuple(_make_route(rung, choice, needs) for rung in choice.rungs)
    problems = list(choice.problems)
    if adapters == "none":
        problems += [_describe_insertion(level, route) for level, route in enumerate(routes, start=1) if route.adapters]
    if problems:
        raise NegotiationError(_format_refusal(encoder, decoder, pyramid, needs, choice, problems))
    return Plan(
        encoder=encoder,
        decoder=decoder,
        routes=(_make_image_route(in_channels), *routes) if needs.image else routes,
        unused=tuple(Unused(source=entry, reason=choice.dropped[entry]) for entry in pyramid if entry in choice.dropped),
        sizes=plan_sizes(sizes, size_multiple=_size_multiple(routes), image_size=image_size, policy=size_policy),
    )


def _make_image_route(in_channels: int) -> Route:
    image = FeatureMap(name="image", channels=in_channels, stride=1)
    return Route(source=image, output=image, reason="the image itself, which the decoder takes as well", is_image=True)


def _size_multiple(routes: Sequence[Route]) -> int:
    """Return the number that H and W must be multiples of, so that every map has a whole number of pixels.

    It is a multiple of the coarsest stride of the encoder's maps in use; a fractional stride is first rounded up to a power of
    two. If the stride of the decoder's coarsest input, which an adapter may have made, is a power of two, the number is also a
    multiple of that stride. Without this rule, the adapter could halve 5 x 7 pixels to 3 x 4 pixels, which a decoder would
    double to 6 x 8 pixels.
    """
    coarsest = max(route.source.stride for route in routes)
    multiple = int(coarsest) if coarsest == int(coarsest) else 2 ** math.ceil(math.log2(coarsest))
    made = max((route.output for route in routes), key=lambda entry: entry.stride)
    return math.lcm(multiple, 2**made.level) if made.stride == 2**made.level else multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rung:
    """One decoder input before its adapters are planned: its level, and the encoder's map that it is made from."""

    level: int
    source: FeatureMap
    how: str  # "select", "fill" or "synthesize"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    rungs: tuple[_Rung, ...]
    dropped: Mapping[FeatureMap, str]
    problems: Sequence[str]


def _choose(pyramid: Pyramid, needs: Needs, levels: int | None) -> _Choice:
    finest = _finest_level(needs)
    usable = tuple(entry for entry in pyramid if entry.level >= finest)
    too_fine = {
        entry: f"the decoder takes no map finer than stride {needs.finest_stride}" for entry in pyramid if entry.level < finest
    }
    if not usable:
        problem = (
            f"every map is finer than stride {needs.finest_stride}, the finest that the decoder takes; choose another encoder"
        )
        return _Choice(rungs=(), dropped=too_fine, problems=[problem])
    choice = _choose_usable(usable, needs, levels)
    return replace(choice, dropped={**too_fine, **choice.dropped})


def _choose_usable(pyramid: Pyramid, needs: Needs, levels: int | None) -> _Choice:
    if needs.one_stride or (not needs.distinct_strides and needs.strides is None):
        return _choose_every_map(pyramid, needs, levels)
    dropped = _explain_earlier_of_one_stride(pyramid)
    at = {entry.level: entry for entry in pyramid if entry not in dropped}
    wanted, problems = (_choose_ladder if needs.strides is None else _choose_exact)(sorted(at), needs, levels)
    if needs.max_levels is not None:
        wanted = wanted[-needs.max_levels :]
    if not problems and (not wanted or len(wanted) < needs.min_levels):
        problems.append(_describe_too_few(len(wanted), needs, levels))
    rungs = tuple(_make_rung(level, at, wanted) for level in wanted)
    sources = {rung.source for rung in rungs}
    for level, entry in at.items():
        if entry not in sources:
            dropped[entry] = _reason_against(level, needs, levels if wanted and level > wanted[-1] else None)
    return _Choice(rungs=rungs, dropped=dropped, problems=problems)


def _choose_exact(present: list[int], needs: Needs, levels: int | None) -> tuple[list[int], list[str]]:
    """Return the levels of the strides that the decoder needs, and a problem for each stride that `levels` leaves out.

    If the decoder also works with fewer maps, a stride that is left out is no problem: the coarsest level that `levels` keeps
    then replaces all coarser levels.
    """
    wanted = [round(math.log2(stride)) for stride in needs.strides or ()]
    if levels is None:
        return wanted, []
    coarsest = present[levels - 1] if levels < len(present) else 99
    left = sorted({min(level, coarsest) for level in wanted})[:levels]
    if left == wanted or (needs.min_levels <= len(left) and needs.min_levels < len(wanted)):
        return left, []
    lost = [level for index, level in enumerate(wanted) if index >= levels or level > coarsest]
    return wanted, [
        f"stride {2**level} is needed, but levels={levels} leaves it out; pass a larger value of levels" for level in lost
    ]


def _choose_ladder(present: list[int], needs: Needs, levels: int | None) -> tuple[list[int], list[str]]:
    """Return the levels of the decoder's inputs, fine to coarse, and any problems with `levels`.

    If `levels` is given, the decoder gets exactly that many inputs, provided that the encoder has that many strides, or that
    adapters can make the missing ones.
    """
    limit = _coarsest_level(needs)
    ladder = [level for level in present[:levels] if level <= limit]
    least = max(needs.min_levels, levels or 1)
    for missing in _missing_levels(ladder, present, least > needs.min_levels, range(_finest_level(needs), limit + 1)):
        if len(ladder) >= least:
            break
        ladder = sorted({*ladder, *missing})
    if levels is not None and len(ladder) < levels and len(present) < levels:
        made = f", from which {len(ladder)} can be made" if len(ladder) > len(present) else ""
        most = max(len(ladder), len(present))
        return ladder, [
            f"levels={levels} requests {levels} strides, but the encoder has {len(present)}{made}; request at most {most}"
        ]
    return ladder[:levels], []


def _missing_levels(ladder: list[int], present: list[int], only_usual: bool, allowed: range) -> Iterator[list[int]]:
    """Yield levels to add to the ladder (the levels that are chosen already), best first.

    First come the levels that are missing between those of the ladder, then the levels of the strides 4 to 32. Unless
    `only_usual`, even finer levels follow.
    """
    usual = [level for level in SYNTHESIZED if level in allowed]
    if len(present) == 1:
        yield usual  # all at once: every level of a pyramid made from one map is synthesized in the same way
        finest, coarsest = min([*usual, *ladder, allowed.stop]), 99
    else:
        # Gaps come first, since their source is nearest. Then come finer levels, which show more detail than coarser ones.
        yield from ([level] for level in range(ladder[0], ladder[-1]) if level not in ladder) if ladder else ()
        finest, coarsest = (ladder[0], ladder[-1]) if ladder else (allowed.stop, allowed.stop - 1)
        yield from ([level] for level in reversed(usual) if level < finest)
        yield from ([level] for level in usual if level > coarsest)
        finest = min(finest, SYNTHESIZED[0])
    if not only_usual:  # only if the decoder itself needs that many maps: maps of stride 2 or 1 are large
        yield from ([level] for level in range(finest - 1, -1, -1) if level in allowed)


def _make_rung(level: int, at: Mapping[int, FeatureMap], wanted: Sequence[int]) -> _Rung:
    if len(at) == 1 and len(wanted) > 1:
        return _Rung(level=level, source=next(iter(at.values())), how="synthesize")
    if level in at:
        return _Rung(level=level, source=at[level], how="select")
    nearest = min(at, key=lambda other: (abs(other - level), other))
    how = "fill" if min(at) < level < max(at) else "synthesize"
    return _Rung(level=level, source=at[nearest], how=how)


def _choose_every_map(pyramid: Pyramid, needs: Needs, levels: int | None) -> _Choice:
    """Choose maps for a decoder that takes several maps of one stride, such as DPT, which takes four.

    `levels` counts strides, or maps if the encoder has a single stride.
    """
    # 1. Keep the strides that `levels` and the decoder's output stride allow.
    problems = []
    present = sorted({entry.level for entry in pyramid})
    counted, most = ("maps", len(pyramid)) if len(present) == 1 else ("strides", len(present))
    if levels is not None and levels > most:
        problems.append(f"levels={levels} requests {levels} {counted}, but the encoder has {most}; request at most {most}")
    cut = present[:levels]
    kept = [entry for entry in pyramid if entry.level in cut and entry.level <= _coarsest_level(needs)]
    dropped = {
        entry: _reason_against(entry.level, needs, levels if entry.level not in cut else None)
        for entry in pyramid
        if entry not in kept
    }
    # 2. If all of the decoder's maps must have one stride, keep the stride that the decoder names or, if it names none, the
    #    stride with the most maps.
    if needs.one_stride:
        level = _fullest_level(kept, needs)
        reason = f"the decoder takes maps of one stride, here {2**level}"
        dropped |= {entry: reason for entry in kept if entry.level != level}
        kept = [entry for entry in kept if entry.level == level]
    # 3. If there are too many maps, and all have one stride, take evenly spaced maps: neighboring blocks of a transformer are
    #    nearly alike. If there are too many maps of several strides, take the coarsest maps, as for other decoders.
    limits = [limit for limit in (needs.max_levels, levels if len(present) == 1 else None) if limit is not None]
    count = min(limits, default=len(kept))
    if len(kept) > count:
        if len({entry.level for entry in kept}) == 1:
            taken = {len(kept) * (index + 1) // count - 1 for index in range(count)}
            reason = f"the decoder takes {count} of the {len(kept)} maps at this stride, evenly spaced, the last included"
        else:
            taken = set(range(len(kept) - count, len(kept)))
            reason = _reason_against(kept[0].level, needs, None)
        dropped |= {entry: reason for index, entry in enumerate(kept) if index not in taken}
        kept = [entry for index, entry in enumerate(kept) if index in taken]
    # 4. Too few maps are an error: adapters can make new strides, but not more maps of one stride.
    if not problems and needs.one_stride and len(kept) < needs.min_levels:
        where = f"at one stride; the encoder has {len(kept)} at stride {2**level}"
        problems.append(f"the decoder needs at least {needs.min_levels} feature maps {where}; choose another encoder")
    elif not problems and (not kept or len(kept) < needs.min_levels):
        made = f"needs=zoo.Needs(min_levels={needs.min_levels}), so that missing strides are made"
        problems.append(f"{_describe_too_few(len(kept), needs, levels)}, or, if the decoder is yours, register it with {made}")
    rungs = tuple(_Rung(level=entry.level, source=entry, how="select") for entry in kept)
    return _Choice(rungs=rungs, dropped=dropped, problems=problems)


def _fullest_level(maps: Sequence[FeatureMap], needs: Needs) -> int:
    """Return the level of the one stride whose maps the decoder gets.

    If the decoder names no stride, the maps of the stride with the most maps are used; if several strides tie, those of the
    finest.
    """
    if needs.strides is not None:
        return round(math.log2(needs.strides[0]))
    levels = [entry.level for entry in maps]
    return max(sorted(set(levels)), key=levels.count, default=0)


def _finest_level(needs: Needs) -> int:
    return needs.finest_stride.bit_length() - 1


def _coarsest_level(needs: Needs) -> int:
    return 99 if needs.output_stride is None else round(math.log2(needs.output_stride))


def _describe_too_few(count: int, needs: Needs, levels: int | None) -> str:
    advice = "choose another encoder" if levels is None else "pass a larger value of levels, or choose another encoder"
    left = f"{count} {'is' if count == 1 else 'are'} left"
    return f"the decoder needs at least {needs.min_levels} feature maps, but {left}; {advice}"


def _explain_earlier_of_one_stride(maps: Sequence[FeatureMap]) -> dict[FeatureMap, str]:
    last = {entry.level: entry for entry in maps}
    return {entry: _reason_for_earlier(entry, last[entry.level]) for entry in maps if last[entry.level] is not entry}


def _reason_for_earlier(entry: FeatureMap, later: FeatureMap) -> str:
    if entry.stride == later.stride:
        return f"shares stride {entry.stride:g} with {later.name}, which comes later"
    return f"is nearest to stride {2**entry.level}, as is {later.name} (stride {later.stride:g}), which comes later"


def _reason_against(level: int, needs: Needs, levels: int | None) -> str:
    if levels is not None:
        return f"levels={levels} keeps the {f'{levels} finest strides' if levels > 1 else 'finest stride'}"
    if needs.strides is not None:
        return f"the decoder takes strides {', '.join(map(str, needs.strides))}"
    if level > _coarsest_level(needs):
        return f"the decoder wants no map coarser than stride {needs.output_stride}"
    count = needs.max_levels
    return f"the decoder takes {count} map{'s' if count != 1 else ''}, the coarsest"


def _make_route(rung: _Rung, choice: _Choice, needs: Needs) -> Route:
    source = rung.source
    if rung.how == "select":
        reason = _reason_for(rung, choice, needs)
        if needs.channels is None or needs.channels == source.channels:
            return Route(source=source, output=source, reason=reason)
        adapter = Adapter(kind="project", in_channels=source.channels, out_channels=needs.channels)
        output = replace(source, channels=needs.channels)
        return Route(
            source=source, output=output, adapters=(adapter,), reason=f"{reason}; the decoder wants {needs.channels} channels"
        )
    steps = source.level - rung.level
    default = source.channels if rung.how == "fill" else SYNTHESIZED_CHANNELS
    adapter = Adapter(kind=rung.how, in_channels=source.channels, out_channels=needs.channels or default, steps=steps)
    stride = max(1.0, source.stride / 2**steps)
    output = FeatureMap(name=f"{source.name}/stride{stride:g}", channels=adapter.out_channels, stride=stride)
    if rung.how == "fill":
        reason = f"stride {2**rung.level} is missing between the encoder's strides; the nearest map is at {source.stride:g}"
    elif steps:
        reason = f"the encoder has no stride {2**rung.level}; the nearest map is at {source.stride:g}"
    else:
        reason = f"made from the encoder's only stride, {source.stride:g}, like the other levels"
    return Route(source=source, output=output, adapters=(adapter,), reason=reason)


def _reason_for(rung: _Rung, choice: _Choice, needs: Needs) -> str:
    stride = f"stride {rung.source.stride:g}"
    rivals = [entry.name for entry in choice.dropped if entry.level == rung.source.level]
    if rivals and needs.distinct_strides:
        return f"last of the maps at {stride} (others: {_shorten(rivals)})"
    if rivals:
        return f"chosen among the maps at {stride}; left out: {_shorten(rivals)}"
    if sum(other.level == rung.level for other in choice.rungs) > 1:
        return f"one of several maps at {stride}; the decoder takes them all"
    return f"the only map at {stride}"


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:2])} ... {names[-1]}"


def _describe_insertion(level: int, route: Route) -> str:
    adapter = route.adapters[0]
    if adapter.kind == "project":
        missing = f"{route.source} does not have the decoder's {adapter.out_channels} channels"
    elif adapter.steps:
        missing = f"the encoder has no map at stride {2**route.output.level}"
    else:
        missing = f"{route.source} alone is not a pyramid"
    return (
        f"level {level} (stride {2**route.output.level}): {missing}; this level would need a {adapter} after "
        f"{route.source.name}; allow such adapters with adapters='auto'"
    )


def _format_refusal(
    encoder: str, decoder: str, pyramid: Pyramid, needs: Needs, choice: _Choice, problems: Sequence[str]
) -> str:
    lines = [f"{encoder} cannot serve {decoder} with these options.", f"  {decoder} needs: {needs}", f"  {encoder} has:"]
    for state, alike in groupby(pyramid, key=lambda entry: choice.dropped.get(entry)):
        entries = list(alike)
        text = "usable" if state is None else f"unused: {state}"
        if len(entries) > 3 and state is not None:
            lines.append(f"    {len(entries)} maps from {entries[0]} to {entries[-1]}: {text}")
        else:
            lines += [f"    {entry}: {text}" for entry in entries]
    lines += [f"  Problem: {problem}." for problem in problems]
    return "\n".join(lines)
