"""Load weights from another source into a model or into a part of a model. If this fails, the model is unchanged."""

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
    """Load weights into a model. They can come from another program, from another model or from your own training.

    The names of the tensors may have any prefix, such as `module.` or `model.encoder.`. zoo compares the names and the shapes
    of the tensors to find the prefix of each part of the model. So it finds an encoder in the weights of a whole segmentation
    model, and it can load checkpoints of segmentation_models_pytorch into `smp:` pairings. The model's normalization is not
    changed.

    Args:
        model: a model from `zoo.build`. Its mode and device are not changed.
        weights: a path or "hf-hub:OWNER/NAME", as for `zoo.read_state_dict`, or a mapping of names to tensors.
        part: "encoder", "decoder" or "head"; None for the whole model.
        strict: whether every tensor of the part must be in the file, and every tensor of the file must be used. Even with True,
            the file may contain tensors that are not used: those of an encoder's classifier or of stages that the model does
            not have, and those whose names do not have the prefix. With False, the tensors that fit are loaded, and the model's
            other tensors stay unchanged.

    Returns:
        A printable report. It names the tensors that were loaded, are missing, are unexpected, have another shape, or were
        left out.

    Raises:
        WeightsError: the weights cannot be read, do not fit, or fit equally well under several prefixes. The model is then
            unchanged.
        OptionError: the part does not exist, or the model is not from `zoo.build`. If a model is compiled or parallel, pass
            the original model that it contains.

    Example:
        >>> model = zoo.build("smp:resnet34", "smp:unet", classes=2)
        >>> print(zoo.load_weights(model, "lightning.ckpt"))
    """
    if part not in (None, *PARTS):
        raise OptionError(f"part must be {', '.join(map(repr, PARTS))}, or None for the whole model; found {part!r}.")
    if not isinstance(model, SegmentationModel):  # a wrapper's `load_state_dict` would silently match no name
        raise OptionError(
            f"load_weights requires a model from zoo.build or zoo.load; found a {type(model).__name__}. Pass the model "
            "inside it: `_orig_mod` of a compiled model, `module` of a parallel model."
        )
    if isinstance(weights, Mapping):
        source, state = "The state dict", unwrap_state_dict(weights, "The state dict")
    else:
        source, state = fspath(weights), read_state_dict(weights)
    matched = _match_model(model, state) if part is None else _match_part(model, part, state)
    report = matched.report
    if (strict and not report.is_complete) or not report.loaded:
        of = f"{model.pairing}" if part is None else f"the {part} of {model.pairing}"
        hint = "Pass strict=False to load what fits." if strict and report.loaded else "No tensor fits."
        raise WeightsError(f"{source} does not fit {of}: {report.problems}. The model is unchanged. {hint}")
    check_finite(matched.tensors, model, source)
    model.load_state_dict(matched.tensors, strict=False)
    return report


def _match_model(model: SegmentationModel, state: Mapping[str, Tensor]) -> MatchedWeights:
    """Match the whole model. If that fails, match the parts one by one, each to the tensors that are left."""
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
            # Later parts do not get the tensors under this part's prefix, except those that this part does not have.
            prefix, unexpected = part.prefix, set(part.report.unexpected)
            rest = {
                key: tensor for key, tensor in rest.items() if prefix is None or not key.startswith(prefix) or key in unexpected
            }
    return _join_parts(parts, state, rest)


def _join_parts(parts: list[MatchedWeights], state: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> MatchedWeights:
    """Combine the matches of all parts. `rest` contains the tensors of the file that no part used."""
    # A file may contain more than the model, such as a trainer's state. So a remaining tensor is unexpected only if it has the
    # prefix that all parts share, since it then belongs to the model. Otherwise, it is left out.
    prefix = _find_common_prefix([part.prefix for part in parts if part.prefix is not None])
    unexpected = [key for key in rest if key.startswith(prefix)]
    # Each part reports the tensors of the other parts as left out, too. Only those under the part's own prefix are really left
    # out: they are known, but not needed.
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
    """Match one part to the file, with the method `match_weights` of the part's module if there is one."""
    module: nn.Module = getattr(model, part)
    match_own: Any = getattr(module, "match_weights", None)
    try:
        matched = match_own(state) if match_own else match_weights(state, module.state_dict(), named=part)
    except WeightsError as cause:
        raise WeightsError(f"The {part} of {model.pairing}: {cause}") from cause
    return _report_prefix(matched.within(f"{part}."), part)


def _report_prefix(matched: MatchedWeights, part: str) -> MatchedWeights:
    """Return the match with a report in which the match's prefix stands under the name of the part."""
    if matched.prefix is None:
        return matched
    return replace(matched, report=replace(matched.report, prefixes={part: matched.prefix}))


def _find_common_prefix(prefixes: list[str]) -> str:
    """Return the beginning that all prefixes share. The last word of a prefix is ignored, since it names the part."""
    steps = [prefix.split(".")[:-2] for prefix in prefixes]
    shared = []
    for step in zip(*steps, strict=False):
        if len(set(step)) > 1:
            break
        shared.append(f"{step[0]}.")
    return "".join(shared)
