"""Compute the training loss: a weighted sum of losses that zoo provides and of custom loss functions."""

from __future__ import annotations

import inspect
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.common.foreign_code import ForeignError, foreign_code
from zoo.common.format_names import format_names
from zoo.common.import_path import import_object
from zoo.common.suggestions import did_you_mean
from zoo.data.checked_samples import count_class_pixels
from zoo.data.fingerprint import Fingerprint, random_parts
from zoo.data.segmentation_data import SegmentationData
from zoo.errors import DataError, OptionError, PluginError
from zoo.training.entries import LossTerm
from zoo.training.settings import TrainSettings

__all__ = ["Loss", "choose_class_weights", "make_loss"]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of logits (N, classes, H, W) and masks (N, H, W) of class indexes that returns a scalar."""

OVERLAP = {"dice": "DiceLoss", "jaccard": "JaccardLoss", "tversky": "TverskyLoss", "focal": "FocalLoss", "lovasz": "LovaszLoss"}
"""A mapping from zoo's names of losses to classes of segmentation_models_pytorch, which run in its multiclass mode."""
SET_BY_ZOO = ("mode", "ignore_index", "from_logits", "class_weights", "classes")
"""Arguments of these classes that zoo sets. They are not options of the losses."""
WEIGHTED = ("cross-entropy", "soft-cross-entropy", "dice", "jaccard", "tversky", "focal")
"""The losses that accept class weights."""


def make_loss(terms: Sequence[LossTerm], *, ignored: int, class_weights: Sequence[float] | None = None) -> Loss:
    """Return a function that computes the weighted sum of the losses.

    Ignored pixels do not count. If all pixels of a batch are ignored, its loss is 0.

    The losses, each of which averages over the batch:

    - `cross-entropy`: the cross-entropy of the softmax of the logits.
    - `soft-cross-entropy`: the cross-entropy with label smoothing (Szegedy et al. 2016, arXiv:1512.00567); its option
      `smooth_factor` is 0.1 by default.
    - `dice` (Milletari et al. 2016, arXiv:1606.04797), `jaccard`, `tversky` (Salehi et al. 2017, arXiv:1706.05721; options
      `alpha`, `beta`, `gamma`), `focal` (Lin et al. 2017, arXiv:1708.02002; options `gamma`, `alpha`), `lovasz` (Berman et al.
      2018, arXiv:1705.08790): the losses of segmentation_models_pytorch, with the options that they have there.
    - `mcc`: 1 minus the Matthews correlation coefficient (Abhishek and Hamarneh 2021, arXiv:2010.13454), computed one-vs-rest
      for each class that occurs in the batch, and averaged over these classes.

    Args:
        terms: the losses with their weights and options.
        ignored: the mask value of ignored pixels.
        class_weights: a weight for each class, for the losses in `WEIGHTED`.

    Raises:
        OptionError: a loss does not accept one of its options, or there is no function or class at the import path of a
            custom loss.
        PluginError: a custom loss raises an error when it is imported or constructed.
    """
    losses = [(term.weight, _make_term(term, ignored, class_weights)) for term in terms]

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        logits = logits.float()
        return torch.stack([weight * each(logits, masks) for weight, each in losses]).sum()

    return loss


def choose_class_weights(settings: TrainSettings, data: SegmentationData, fingerprint: Fingerprint) -> list[float] | None:
    """Return the weight of each class; None if the settings do not request class weights.

    The frequency of a class is its share of all training pixels. An automatic weight is the median of the frequencies of all
    classes, divided by the frequency of the class (Eigen and Fergus 2015, arXiv:1411.4734).

    Raises:
        OptionError: no term of the loss accepts class weights.
        DataError: automatic weights cannot be computed, because the training samples are random, or because there is a class to
            which no training pixel belongs.
    """
    if settings.class_weights is None:
        return None
    log = logging.getLogger(__name__)
    names = [term.loss for term in settings.loss_terms]
    without = [name for name in names if name not in WEIGHTED]
    if len(without) == len(names):
        raise OptionError(
            f"class_weights: no term of the loss ({', '.join(names)}) accepts them. Add cross-entropy, or remove class_weights."
        )
    if without:
        log.warning(
            "%s does not accept class_weights; only the other terms of the loss are weighted by class.", " and ".join(without)
        )
    if settings.class_weights != "auto":
        return settings.class_weights
    if "train" in random_parts(fingerprint):
        raise DataError(
            f"class_weights: auto requires training samples that stay the same, but the samples of {data.name} are random. Set "
            "a list of numbers."
        )
    counts = count_class_pixels(data)
    if missing := [name for name, count in zip(data.classes, counts, strict=True) if not count]:
        raise DataError(
            f"class_weights: auto is not possible, since no pixel of the training split of {data.name} belongs to "
            f"{format_names(missing)}. Set a list of numbers, or use data in which every class occurs."
        )
    median = statistics.median(counts)
    weights = [median / count for count in counts]
    listed = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(data.classes, weights, strict=True))
    log.warning("%s: class_weights: %s.", data.name, listed)
    return weights


def _make_term(term: LossTerm, ignored: int, class_weights: Sequence[float] | None) -> Loss:
    name, options = term.loss, term.options
    if name in ("cross-entropy", "soft-cross-entropy"):
        _check_options(name, options, ("smooth_factor",) if name.startswith("soft") else ())
        smoothing = options.get("smooth_factor", 0.1) if name.startswith("soft") else 0.0
        if not isinstance(smoothing, int | float) or isinstance(smoothing, bool) or not 0 <= smoothing < 1:
            raise OptionError(f"loss {name}: smooth_factor must be a number of at least 0 and below 1; found {smoothing!r}.")
        return _cross_entropy(ignored, float(smoothing), class_weights)
    if name == "mcc":
        _check_options(name, options, ("eps",))
        eps = options.get("eps", 1e-5)
        if not isinstance(eps, float) or eps <= 0:
            raise OptionError(f"loss mcc: eps must be a small number above 0; found {eps!r}.")
        return _mcc(ignored, eps)
    if name in OVERLAP:
        import segmentation_models_pytorch.losses as smp

        made = getattr(smp, OVERLAP[name])
        known = inspect.signature(made).parameters
        _check_options(name, options, [each for each in known if each not in SET_BY_ZOO])
        weights = {"class_weights": list(class_weights)} if class_weights is not None and name in WEIGHTED else {}
        if weights and "class_weights" not in known:
            raise OptionError(
                f"class_weights: {name} of the installed segmentation_models_pytorch accepts no class weights. Update that "
                "package."
            )
        try:
            found: Loss = made("multiclass", ignore_index=ignored, **weights, **options)
        except (TypeError, ValueError, AssertionError) as cause:
            raise OptionError(f"loss {name}: {cause or type(cause).__name__}. Options: {dict(options)}.") from cause
        return _skip_empty(found, ignored) if name in ("focal", "lovasz") else found
    return _skip_empty(_own_loss(name, options), ignored)


def _check_options(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            listed = ", ".join(known) or "none"
            raise OptionError(f"The loss {name} has no option {option!r}.{did_you_mean(option, known)} Options: {listed}.")


def _cross_entropy(ignored: int, smoothing: float, class_weights: Sequence[float] | None) -> Loss:
    def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
        weight = logits.new_tensor([1.0] * logits.shape[1] if class_weights is None else class_weights)
        is_kept = masks != ignored
        # As PyTorch does, divide by the sum of the pixels' class weights. If all pixels are ignored, PyTorch would return NaN.
        total = F.cross_entropy(logits, masks, weight, ignore_index=ignored, reduction="sum", label_smoothing=smoothing)
        return total / (weight[masks.where(is_kept, 0)] * is_kept).sum().clamp(min=torch.finfo(weight.dtype).tiny)

    return cross_entropy


def _mcc(ignored: int, eps: float) -> Loss:
    from segmentation_models_pytorch.losses import MCCLoss

    binary = MCCLoss(eps)

    def mcc(logits: Tensor, masks: Tensor) -> Tensor:
        is_kept = masks != ignored
        kept = masks[is_kept]
        losses = []
        for index, probability in enumerate(logits.softmax(dim=1).unbind(dim=1)):
            is_class = (kept == index).to(logits.dtype)
            losses.append(torch.where(is_class.any(), binary(probability[is_kept][None], is_class[None]), torch.nan))
        return torch.stack(losses).nanmean()

    return _skip_empty(mcc, ignored)


def _skip_empty(loss: Loss, ignored: int) -> Loss:
    """Return a loss that equals `loss`, except that it is 0 instead of NaN if all pixels are ignored."""
    return lambda logits, masks: loss(logits, masks) if (masks != ignored).any() else logits.sum() * 0


def _own_loss(path: str, options: Mapping[str, Any]) -> Loss:
    """Return a custom loss. Whenever the loss is called, its value is checked."""
    found = import_object(path)
    try:
        with foreign_code():
            if isinstance(found, type):
                found = found(**options)
            elif options:
                raise OptionError(f"The loss {path} is a function, which has no options. Write a class with these arguments.")
    except ForeignError as failure:
        raise PluginError(
            f"The loss {path} could not be created with the options {dict(options)}: {failure}."
        ) from failure.__cause__
    if not callable(found):
        raise OptionError(f"The loss {path} must be a function of logits and masks; found a {type(found).__name__}.")

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        module = found.to(logits.device) if isinstance(found, nn.Module) else found
        try:
            with foreign_code():
                value = module(logits, masks)
        except ForeignError as failure:
            raise PluginError(
                f"The loss {path} fails on logits {tuple(logits.shape)} and masks {tuple(masks.shape)}: {failure}."
            ) from failure.__cause__
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            what = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise PluginError(f"The loss {path} must return a scalar tensor, such as the mean over the pixels; found {what}.")
        if value.requires_grad != logits.requires_grad:
            raise PluginError(
                f"The loss {path} returns a value without a gradient. Compute the value from the logits with differentiable "
                "PyTorch operations only."
            )
        return value

    return loss
