"""Weights from elsewhere into a model that is built: the whole of it or a part, or an error and nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from torch import Tensor, nn

from zoo.checkpoints.matching import MatchedWeights, WeightsReport, check_finite, match_weights
from zoo.checkpoints.state_dicts import read_state_dict, unwrapped
from zoo.errors import OptionError, WeightsError
from zoo.model.model import SegmentationModel

__all__ = ["load_weights"]

PARTS = ("encoder", "decoder", "head")
ALL_PARTS = ("encoder", "adapters", "decoder", "head", "aux_heads")


def load_weights(
    model: SegmentationModel,
    weights: str | PathLike[str] | Mapping[str, Any],
    *,
    part: str | None = None,
    strict: bool = True,
) -> WeightsReport:
    """Load weights that were made elsewhere: by another program, another model, or a training of your own.

    The names need not begin as the model's do: `module.`, `model.encoder.` or whatever stands before them is found by the
    names and shapes behind it, for each part by itself. So an encoder is found in a whole segmentation model's weights, and
    the checkpoints of segmentation_models_pytorch fit the `smp:` pairings. The model's normalisation stays as it is.

    Args:
        model: what `zoo.build` gave; modes and devices stay as they are.
        weights: a path or "hf-hub:OWNER/NAME", as `zoo.read_state_dict` takes them, or the tensors by name.
        part: "encoder", "decoder" or "head"; None for all of the model.
        strict: every tensor of the part has to come from the file, and every tensor of the file has to go somewhere; an
            encoder's classifier and the stages that it was cut of may be there, and are left out, as is what lies outside
            the prefix in a larger file. False loads what fits and leaves the rest as it is, never a tensor of another shape.

    Returns:
        What was loaded, missing, unexpected and left out; `print` it.

    Raises:
        WeightsError: the weights cannot be read or do not fit, or two sets of them fit alike. Nothing was changed.
        OptionError: there is no such part, or the model is none of `zoo.build`, such as one that is compiled or parallel: load
            into the model within it.

    Example:
        >>> model = zoo.build("smp:resnet34", "smp:unet", classes=2)
        >>> print(zoo.load_weights(model, "lightning.ckpt"))
    """
    if part not in (None, *PARTS):
        raise OptionError(f"part is {', '.join(map(repr, PARTS))}, or None for all of the model; found {part!r}.")
    if not isinstance(model, SegmentationModel):  # a wrapper's `load_state_dict` would find none of the names, and say nothing
        raise OptionError(
            f"load_weights takes a model that zoo.build or zoo.load gave; found a {type(model).__name__}. Give the model "
            "within it: `_orig_mod` of a compiled one, `module` of a parallel one."
        )
    if isinstance(weights, Mapping):
        source, state = "The state dict", unwrapped(weights, "The state dict")
    else:
        source, state = fspath(weights), read_state_dict(weights)
    matched = _whole(model, state) if part is None else _part(model, part, state)
    report = matched.report
    if (strict and not report.is_complete) or not report.loaded:
        of = f"{model.pairing}" if part is None else f"the {part} of {model.pairing}"
        hint = "strict=False loads what fits." if strict and report.loaded else "Nothing of it fits."
        raise WeightsError(f"{source} does not fit {of}: {report.problems}. The model is as it was. {hint}")
    check_finite(matched.tensors, model, source)
    model.load_state_dict(matched.tensors, strict=False)
    return report


def _whole(model: SegmentationModel, state: Mapping[str, Tensor]) -> MatchedWeights:
    """Match a model as a whole, or else each part by itself with what the others leave."""
    own = model.state_dict()
    try:
        whole = match_weights(state, own)
    except WeightsError as cause:
        raise WeightsError(f"{model.pairing}: {cause}") from cause
    if whole.report.is_complete:
        return _reported(whole, "model")
    parts: list[MatchedWeights] = []
    rest = dict(state)
    for name in ALL_PARTS:
        if getattr(model, name).state_dict():
            found = _part(model, name, rest)
            parts.append(found)
            unexpected = set(found.report.unexpected)
            prefix = found.prefix
            rest = {
                key: tensor for key, tensor in rest.items() if prefix is None or not key.startswith(prefix) or key in unexpected
            }
    return _joined(parts, state, rest)


def _joined(parts: list[MatchedWeights], state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> MatchedWeights:
    """Return the parts as one; of the tensors that none took, those beside the parts are unexpected."""
    above = _common([found.prefix for found in parts if found.prefix is not None])
    unexpected = [key for key in rest if key.startswith(above)]
    known = {
        key for found in parts for key in found.report.left_out if found.prefix is not None and key.startswith(found.prefix)
    }
    outside = [key for key in state if key in known or (key in rest and not key.startswith(above))]

    def names(kind: str) -> tuple[str, ...]:
        return tuple(name for found in parts for name in getattr(found.report, kind))

    return MatchedWeights(
        tensors={name: tensor for found in parts for name, tensor in found.tensors.items()},
        report=WeightsReport(
            loaded=names("loaded"),
            missing=names("missing"),
            reshaped=names("reshaped"),
            unexpected=tuple(unexpected),
            left_out=tuple(outside),
            prefixes={part: prefix for found in parts for part, prefix in found.report.prefixes.items()},
        ),
        prefix=above,
    )


def _part(model: SegmentationModel, part: str, state: Mapping[str, Tensor]) -> MatchedWeights:
    """Match one part, by its own rules where it has some."""
    module: nn.Module = getattr(model, part)
    own: Any = getattr(module, "match_weights", None)
    try:
        found = own(state) if own is not None else match_weights(state, module.state_dict(), named=part)
    except WeightsError as cause:
        raise WeightsError(f"The {part} of {model.pairing}: {cause}") from cause
    return _reported(found.within(f"{part}."), part)


def _reported(found: MatchedWeights, part: str) -> MatchedWeights:
    if found.prefix is None:
        return found
    return replace(found, report=replace(found.report, prefixes={part: found.prefix}))


def _common(prefixes: list[str]) -> str:
    """Return what all prefixes begin with, without the name of the part that each ends with."""
    steps = [prefix.split(".")[:-2] for prefix in prefixes]
    shared = []
    for step in zip(*steps, strict=False):
        if len(set(step)) > 1:
            break
        shared.append(f"{step[0]}.")
    return "".join(shared)
