"""Match the tensors of a file to those of a module: find the prefix of the file's names, compare shapes, report differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from zoo.common.format_names import format_names
from zoo.errors import WeightsError

__all__ = ["MatchedWeights", "WeightsReport", "check_finite", "is_same_kind", "load_encoder_weights", "match_weights"]

SHOWN = 3
COUNTER = "num_batches_tracked"
"""A norm's counter of batches. No output depends on it, and old files do not contain it."""
VARIANCE = "running_var"
NORMS_OWN = ("running_mean", VARIANCE, "weight", "bias")
"""The names of a norm's tensors. In a frozen norm, all four are buffers. Infinity is never intended in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """The result of matching the tensors of a file to those of a module.

    Attributes:
        loaded: the module's tensors that come from the file.
        missing: the module's tensors that the file does not have.
        reshaped: the name and both shapes of each of the module's tensors that has a different shape in the file. Such a tensor
            is not loaded.
        unexpected: the file's tensors that the module does not have.
        left_out: the file's tensors that are known but not needed: those of a classifier, of unused stages or of other parts.
        prefixes: for each part of the model, the prefix of its tensors' names in the file.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether no tensor is missing, unexpected or of a different shape."""
        return not (self.missing or self.reshaped or self.unexpected)

    @property
    def problems(self) -> str:
        """A line that names the tensors that are missing, unexpected or of a different shape."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        return "; ".join(f"{kind} {_shorten(names)}" for kind, names in kinds)

    def __str__(self) -> str:
        """Return a line for each list, from `loaded` to `left_out`: the number of tensors, and the prefixes or a few names."""
        parts = ", ".join(f"{part} from {prefix!r}" if prefix else part for part, prefix in self.prefixes.items())
        lines = [
            f"loaded            {len(self.loaded)} tensors{f' ({parts})' if parts else ''}",
            f"missing           {_shorten(self.missing)}",
            f"of another shape  {_shorten(self.reshaped)}",
            f"unexpected        {_shorten(self.unexpected)}",
            f"left out          {_shorten(self.left_out)}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedWeights:
    """The tensors of a file under a module's names.

    Attributes:
        tensors: the tensors that fit, with the module's names and shapes, for `module.load_state_dict(tensors, strict=False)`.
        report: which tensors matched, and which did not.
        prefix: the prefix of the module's names in the file; None if the module was not found.
    """

    tensors: Mapping[str, Tensor]
    report: WeightsReport
    prefix: str | None

    def within(self, path: str) -> MatchedWeights:
        """Return these tensors and this report for a module that holds the matched one, with `path` before every name.

        Args:
            path: where the module holds the matched one, such as "network.".
        """
        report = replace(
            self.report,
            loaded=tuple(f"{path}{name}" for name in self.report.loaded),
            missing=tuple(f"{path}{name}" for name in self.report.missing),
            reshaped=tuple(f"{path}{name}" for name in self.report.reshaped),
        )
        return replace(self, tensors={f"{path}{name}": tensor for name, tensor in self.tensors.items()}, report=report)


def match_weights(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    architecture: Mapping[str, Tensor] | None = None,
    left_out: Callable[[str], bool] = lambda _: False,
    first_convs: Collection[str] = (),
    other_names: Mapping[str, str] | None = None,
    named: str = "",
) -> MatchedWeights:
    """Match a file's tensors to those of a module, under any prefix of their names.

    The prefix is the one under which the file has all of the module's tensors, with the right names and shapes. If there is no
    such prefix, the candidates are the prefixes that end with `named`. If there are none of these either, the candidates are
    the prefixes under which the file has more than half of the module's tensors. Of the candidates, the prefix with the most
    matching tensors is used.
    Tensors without the prefix belong to other modules and are left out. Tensors with the prefix are unexpected if the module
    does not have them.

    Args:
        state: the file's tensors.
        wanted: the module's state dict.
        architecture: the state dict of the whole architecture, if the module is only a part of it. The state dict may be on
            the meta device. The file may then also contain the architecture's other tensors, in the same shapes.
        left_out: a function of a tensor's name (without the prefix) that returns whether the tensor is known but not needed,
            such as a classifier's.
        first_convs: the names of weights that may have three input channels in the file and a different number in the module.
            If the module has one channel, its kernel is the sum of the file's three. For any other number, the three kernels
            are repeated in turn, and scaled to preserve the size of the activations (as in timm).
        other_names: other names that a file may use, mapped to the module's own names.
        named: the name that the module usually has in models, such as "head". A prefix that ends with this name is preferred.

    Raises:
        WeightsError: the module matches equally well under several prefixes, or a tensor contains numbers of a different kind
            from the module's (such as int8).
    """
    # The architecture's own names come last, so that they take precedence over equal names in `other_names`.
    own_names = {**(other_names or {}), **{name: name for name in (*(architecture or {}), *wanted)}}

    def fits(name: str, tensor: Tensor) -> bool:
        return _fits(tensor, wanted[name]) or (name in first_convs and _is_adaptable(tensor, wanted[name]))

    prefix = _find_prefix(state, wanted, own_names, fits, named)
    tensors: dict[str, Tensor] = {}
    reshaped: dict[str, str] = {}
    unexpected: list[str] = []
    others: list[str] = []
    for key, tensor in state.items():
        if prefix is None:  # the module is not in the file at all
            unexpected.append(key)
            continue
        if not key.startswith(prefix):
            others.append(key)
            continue
        local_name = key.removeprefix(prefix)
        name = own_names.get(local_name, local_name)
        if name in wanted and name not in tensors:
            if fits(name, tensor):
                tensors[name] = _adapt_channels(tensor, wanted[name])
            # A tensor of the right shape whose numbers are of another kind is an error: no part of such a file can be used.
            elif tensor.shape == wanted[name].shape and not name.endswith(COUNTER):
                raise WeightsError(
                    f"{_describe_shapes(name, tensor, wanted[name])}. The file may contain quantized weights. Convert them "
                    "to float32 with the library that made them."
                )
            else:
                reshaped[name] = _describe_shapes(name, tensor, wanted[name])
        elif left_out(name):
            others.append(key)
        elif name not in wanted and architecture is not None and name in architecture:
            if _fits(tensor, architecture[name]):
                others.append(key)
            else:
                reshaped[name] = _describe_shapes(name, tensor, architecture[name])
        else:
            unexpected.append(key)
    # Files that PyTorch wrote before 0.4.1 have no counters of batches. No output depends on these counters.
    missing = [name for name in wanted if name not in tensors and name not in reshaped and not name.endswith(COUNTER)]
    report = WeightsReport(
        loaded=tuple(tensors),
        missing=tuple(missing),
        reshaped=tuple(reshaped.values()),
        unexpected=tuple(unexpected),
        left_out=tuple(others),
    )
    return MatchedWeights(tensors=tensors, report=report, prefix=prefix)


def load_encoder_weights(encoder: nn.Module, state: Mapping[str, Tensor], *, source: str, of: str) -> None:
    """Load a file's tensors into an encoder that has a method `match_weights(state)`. If one tensor does not fit, load none.

    Args:
        encoder: the encoder. On the meta device, its tensors are compared with the file's but not filled.
        state: the file's tensors.
        source: the value of `weights` that the caller passed, for error messages.
        of: the encoder's name, for error messages.

    Raises:
        WeightsError: a tensor is missing, unexpected or of a different shape; the message names it.
    """
    try:
        matched: MatchedWeights = encoder.match_weights(state)  # type: ignore[operator]
    except WeightsError as cause:
        raise WeightsError(f"weights={source!r} for {of}: {cause}") from cause
    if not matched.report.is_complete:
        raise WeightsError(
            f"weights={source!r} do not fit {of}: {matched.report.problems}. To load only the tensors that fit, build without "
            "weights and call zoo.load_weights(model, weights, part='encoder', strict=False)."
        )
    if not any(parameter.is_meta for parameter in encoder.parameters()):
        check_finite(matched.tensors, encoder, f"weights={source!r} for {of}")
        encoder.load_state_dict(matched.tensors, strict=False)


def _find_prefix(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    own_names: Mapping[str, str],
    fits: Callable[[str, Tensor], bool],
    named: str,
) -> str | None:
    """Return the prefix of the module's names in a file; None if the file does not contain the module."""
    # If a key of the file ends with one of the module's names, the rest of the key may be the prefix. For each such prefix,
    # count the module's tensors whose names the file has, and those whose shapes fit as well.
    fitting: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for key, tensor in state.items():
        if key.endswith(COUNTER):
            continue
        start = 0
        while start >= 0:
            name = own_names.get(key[start:], "")
            if name in wanted:
                seen[key[:start]] += 1
                fitting[key[:start]] += fits(name, tensor)
            start = key.find(".", start) + 1 or -1
    num_wanted = sum(not name.endswith(COUNTER) for name in wanted)
    likely = [prefix for prefix in seen if named and _ends_with(prefix, named)]
    candidates = [prefix for prefix, number in fitting.items() if number == num_wanted]
    if len(candidates) > 1 and len(preferred := [prefix for prefix in candidates if prefix in likely]) == 1:
        candidates = preferred
    if not candidates:  # without `named`, more than half must fit, since a few may fit by chance
        tried = likely or [prefix for prefix, number in fitting.items() if 2 * number > num_wanted]
        most = max((fitting[prefix] for prefix in tried), default=0)
        candidates = [prefix for prefix in tried if fitting[prefix] == most]
    if len(candidates) > 1:
        prefixes = " and ".join(repr(prefix) if prefix else "none" for prefix in sorted(candidates)[:4])
        raise WeightsError(
            f"The weights fit equally well under several prefixes: {prefixes}. Choose one: zoo.read_state_dict(path, "
            f"prefix={sorted(candidates)[-1]!r}) returns its tensors. Pass them to zoo.load_weights or torch.save."
        )
    return candidates[0] if candidates else None


def _ends_with(prefix: str, named: str) -> bool:
    """Return whether the last word of a prefix ends with a name.

    For the name "head", this is true of the prefixes `head.` and `model.segmentation_head.`.
    """
    last = prefix.removesuffix(".").rpartition(".")[2]
    return last == named or last.endswith(f"_{named}")


def is_same_kind(tensor: Tensor, wanted: Tensor) -> bool:
    """Return whether a tensor's numbers can be converted to the wanted dtype without losing their meaning.

    Floats of 16 to 64 bits can be converted to one another, and integers can be converted to other integers. If floats are
    wanted, but a tensor has integers, booleans or 8-bit floats, it contains quantized weights, which mean nothing without their
    scale.
    """
    if tensor.layout != wanted.layout or (tensor.is_meta and not wanted.is_meta):
        return False
    kinds = [next((kind for kind in _KINDS if each.dtype in kind), (each.dtype,)) for each in (tensor, wanted)]
    return kinds[0] == kinds[1]


_KINDS = (
    (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    (torch.complex32, torch.complex64, torch.complex128),
)


def check_finite(tensors: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Raise a WeightsError if a tensor contains NaN, infinity or a negative variance, which make a module's output useless.

    In buffers that do not belong to a norm, infinity is allowed, since an attention mask may contain it.

    Args:
        tensors: tensors with the module's names and shapes.
        module: the module into which the tensors are loaded.
        source: the origin of the tensors, for the error message.

    Raises:
        WeightsError: a tensor has such a value. The message names the first such tensor.
    """
    parameters = dict(module.named_parameters())
    dtypes = {name: tensor.dtype for name, tensor in (*module.named_buffers(), *parameters.items())}
    for name, tensor in tensors.items():
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        last = name.rpartition(".")[2]
        held = tensor.to(dtypes.get(name, tensor.dtype))  # a float64 value outside float32's range becomes infinity
        is_bad = ~held.isfinite() if name in parameters or last in NORMS_OWN else held.isnan()
        what = "NaN or infinity"
        if last == VARIANCE and not is_bad.any():
            is_bad, what = held < 0, "a variance below 0"
        if count := int(is_bad.sum()):
            raise WeightsError(
                f"{source}: {name} contains {what} in {count:,} of {tensor.numel():,} values, so all predictions would "
                "be meaningless. The training diverged, or the file is damaged. Use an earlier checkpoint."
            )


def _fits(tensor: Tensor, wanted: Tensor) -> bool:
    return tensor.shape == wanted.shape and is_same_kind(tensor, wanted)


def _is_adaptable(tensor: Tensor, wanted: Tensor) -> bool:
    """Return whether a convolution's weight has the wanted shape, except that it has three input channels in the file."""
    return (
        tensor.ndim == wanted.ndim == 4
        and is_same_kind(tensor, wanted)
        and tensor.shape[1] == 3
        and (tensor.shape[0], *tensor.shape[2:]) == (wanted.shape[0], *wanted.shape[2:])
    )


def _adapt_channels(tensor: Tensor, wanted: Tensor) -> Tensor:
    if tensor.shape == wanted.shape:
        return tensor
    channels = wanted.shape[1]
    if channels == 1:
        adapted = tensor.float().sum(dim=1, keepdim=True)
    else:
        adapted = tensor.float().repeat(1, math.ceil(channels / 3), 1, 1)[:, :channels] * (3 / channels)
    return adapted.to(tensor.dtype)


def _describe_shapes(name: str, found: Tensor, needed: Tensor) -> str:
    kinds = ("", "") if is_same_kind(found, needed) else (found.dtype, needed.dtype)
    found_as, needed_as = (
        f"{tuple(tensor.shape)}{kind and f' of {kind}'}" for tensor, kind in zip((found, needed), kinds, strict=True)
    )
    return f"{name}: found {found_as}, needed {needed_as}"


def _shorten(entries: Collection[str]) -> str:
    """Return, as text, the number of entries and the first few of them."""
    return f"{len(entries)} ({format_names(entries, SHOWN)})" if entries else "none"
