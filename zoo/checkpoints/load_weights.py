"""Load weights from elsewhere into a model or a part of it; after an error, nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from torch import Tensor, nn

from zoo.checkpoints.matching import MatchedWeights, WeightsReport, check_finite, match_weights
from zoo.checkpoints.state_dicts import read_state_dict, unwrap_state_dict
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
    """Load weights that were made elsewhere: by another program, another model, or your own training.

    Names may have any prefix, such as `module.` or `model.encoder.`: it is found for each part, by the names and shapes of
    the tensors. So an encoder is found in the weights of a whole segmentation model, and the checkpoints of
    segmentation_models_pytorch fit the `smp:` pairings. The model's normalization stays as it is.

    Args:
        model: what `zoo.build` gave; modes and devices stay as they are.
        weights: a path or "hf-hub:OWNER/NAME", as `zoo.read_state_dict` takes them, or the tensors by name.
        part: "encoder", "decoder" or "head"; None for all of the model.
        strict: require that every tensor of the part is in the file, and every tensor of the file is used, except an
            encoder's classifier, its unused stages, and tensors outside the prefix in a larger file. False loads the
            tensors that fit and leaves the others as they are.

    Returns:
        The names of the tensors that were loaded, missing, unexpected and left out; `print` it.

    Raises:
        WeightsError: the weights cannot be read or do not fit, or two sets of them fit equally well. Nothing was changed.
        OptionError: the part does not exist, or the model is not one of `zoo.build`, such as a compiled or parallel one: load
            into the model within it.

    Example:
        >>> model = zoo.build("smp:resnet34", "smp:unet", classes=2)
        >>> print(zoo.load_weights(model, "lightning.ckpt"))
    """
    if part not in (None, *PARTS):
        raise OptionError(f"part must be {', '.join(map(repr, PARTS))}, or None for all of the model; found {part!r}.")
    if not isinstance(model, SegmentationModel):  # a wrapper's `load_state_dict` would silently match no name
        raise OptionError(
            f"load_weights takes a model that zoo.build or zoo.load gave; found a {type(model).__name__}. Give the model "
            "within it: `_orig_mod` of a compiled one, `module` of a parallel one."
        )
    if isinstance(weights, Mapping):
        source, state = "The state dict", unwrap_state_dict(weights, "The state dict")
    else:
        source, state = fspath(weights), read_state_dict(weights)
    matched = _match_model(model, state) if part is None else _match_part(model, part, state)
    report = matched.report
    if (strict and not report.is_complete) or not report.loaded:
        of = f"{model.pairing}" if part is None else f"the {part} of {model.pairing}"
        hint = "strict=False loads what fits." if strict and report.loaded else "Nothing of it fits."
        raise WeightsError(f"{source} does not fit {of}: {report.problems}. The model is as it was. {hint}")
    check_finite(matched.tensors, model, source)
    model.load_state_dict(matched.tensors, strict=False)
    return report


def _match_model(model: SegmentationModel, state: Mapping[str, Tensor]) -> MatchedWeights:
    """Match a model as a whole, or else each part with the tensors that the parts before it leave."""
    try:
        whole = match_weights(state, model.state_dict())
    except WeightsError as cause:
        raise WeightsError(f"{model.pairing}: {cause}") from cause
    if whole.report.is_complete:
        return _report_prefix(whole, "model")
    parts: list[MatchedWeights] = []
    rest = dict(state)
    for name in ALL_PARTS:
        if getattr(model, name).state_dict():
            part = _match_part(model, name, rest)
            parts.append(part)
            # Tensors under this part's prefix are taken, except those it does not know: they may be another part's.
            prefix, unexpected = part.prefix, set(part.report.unexpected)
            rest = {
                key: tensor for key, tensor in rest.items() if prefix is None or not key.startswith(prefix) or key in unexpected
            }
    return _join_parts(parts, state, rest)


def _join_parts(parts: list[MatchedWeights], state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> MatchedWeights:
    """Return the parts as one; `rest` are the file's tensors that no part took."""
    # A file may hold a larger thing than the model, a trainer's state say. Only tensors beside the parts, under the prefix
    # that the parts share, belong to the model and are unexpected; the others are left out.
    prefix = _find_common_prefix([part.prefix for part in parts if part.prefix is not None])
    unexpected = [key for key in rest if key.startswith(prefix)]
    # A part reports the tensors of all other parts as left out. Only those under its own prefix are known and not wanted.
    known = {key for part in parts for key in part.report.left_out if part.prefix is not None and key.startswith(part.prefix)}
    outside = [key for key in state if key in known or (key in rest and not key.startswith(prefix))]

    def names(kind: str) -> tuple[str, ...]:
        return tuple(name for part in parts for name in getattr(part.report, kind))

    return MatchedWeights(
        tensors={name: tensor for part in parts for name, tensor in part.tensors.items()},
        report=WeightsReport(
            loaded=names("loaded"),
            missing=names("missing"),
            reshaped=names("reshaped"),
            unexpected=tuple(unexpected),
            left_out=tuple(outside),
            prefixes={name: start for part in parts for name, start in part.report.prefixes.items()},
        ),
        prefix=prefix,
    )


def _match_part(model: SegmentationModel, part: str, state: Mapping[str, Tensor]) -> MatchedWeights:
    """Match one part, by its module's own rules if it has some."""
    module: nn.Module = getattr(model, part)
    match_own: Any = getattr(module, "match_weights", None)
    try:
        matched = match_own(state) if match_own else match_weights(state, module.state_dict(), named=part)
    except WeightsError as cause:
        raise WeightsError(f"The {part} of {model.pairing}: {cause}") from cause
    return _report_prefix(matched.within(f"{part}."), part)


def _report_prefix(matched: MatchedWeights, part: str) -> MatchedWeights:
    """Return the same with the prefix in its report, under the part's name."""
    if matched.prefix is None:
        return matched
    return replace(matched, report=replace(matched.report, prefixes={part: matched.prefix}))


def _find_common_prefix(prefixes: list[str]) -> str:
    """Return the start that all prefixes share, without the part's own name, with which each ends."""
    steps = [prefix.split(".")[:-2] for prefix in prefixes]
    shared = []
    for step in zip(*steps, strict=False):
        if len(set(step)) > 1:
            break
        shared.append(f"{step[0]}.")
    return "".join(shared)
