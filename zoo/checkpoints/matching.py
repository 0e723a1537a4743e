"""Match the tensors of a file with those of a module: find the prefix, compare shapes, and report the rest."""

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
"""A norm's counter of batches, which no output depends on and old files do not have."""
VARIANCE = "running_var"
NORMS_OWN = ("running_mean", VARIANCE, "weight", "bias")
"""What a norm keeps in buffers (a frozen one all four), and where infinity is never meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """Which tensors of a file and a module were matched.

    Attributes:
        loaded: the module's tensors that come from the file.
        missing: the module's tensors that the file does not have.
        reshaped: the module's tensors that have another shape in the file, with both shapes; they are not loaded.
        unexpected: the file's tensors that the module does not have.
        left_out: the file's tensors that are known but not needed: a classifier, unused stages, other parts.
        prefixes: by part, the prefix of its tensors' names in the file.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of the module came from the file, and every tensor of the file is accounted for."""
        return not (self.missing or self.reshaped or self.unexpected)

    @property
    def problems(self) -> str:
        """The tensors that are missing, unexpected or of another shape, on one line."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        return "; ".join(f"{kind} {_shorten(names)}" for kind, names in kinds)

    def __str__(self) -> str:
        """Return a line for each kind, with its number and its first names."""
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
        tensors: of the module's shapes, for `module.load_state_dict(tensors, strict=False)`.
        report: which tensors matched, and which did not.
        prefix: of the module's names in the file; None if the module was not found.
    """

    tensors: Mapping[str, Tensor]
    report: WeightsReport
    prefix: str | None

    def within(self, path: str) -> MatchedWeights:
        """Return the same for a module that holds this one at a path, such as "network."."""
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
    """Find a module's tensors in a file, under any prefix.

    The prefix is the one under which all of the module's tensors are found, by name and shape; or else the one that ends with
    the module's own name, or under which most are found, if these are more than half. Tensors without the prefix belong to
    another module and are left out; tensors with it are the module's, and unexpected if it does not have them.

    Args:
        state: the file's tensors.
        wanted: the module's state dict.
        architecture: the state dict of the whole architecture, on the meta device say, if the module is a part of it: the
            file may hold the other tensors, in their shapes.
        left_out: whether any other name, without the prefix, is known and not needed, such as a classifier's.
        first_convs: tensors that may have three input channels in the file and another number here; one channel gets the sum
            of their kernels, others get them in turn, scaled to keep the activations' size (as timm does).
        other_names: from other names that a file may use to the module's own.
        named: the module's usual name in models ("head"): a prefix that ends with it is preferred.

    Raises:
        WeightsError: the module is found under several prefixes, or a tensor holds another kind of number.
    """
    # The architecture's own names last: they win over an alias of the same spelling.
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
            # A tensor of the right shape and another kind of number is not a mismatch to report: no part of the file is usable.
            elif tensor.shape == wanted[name].shape and not name.endswith(COUNTER):
                raise WeightsError(
                    f"{_describe_shapes(name, tensor, wanted[name])}. These are quantized weights, or others of another kind; "
                    "convert them to float32 by what made them."
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
    # Files of PyTorch before 0.4.1 have no counters of batches, and no output depends on them.
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
    """Load a file's tensors into an encoder that has `match_weights(state)`: all of them, or none.

    Args:
        encoder: on the meta device it is compared and not filled.
        state: the file's tensors.
        source: the file, as the caller named it.
        of: the encoder's name in errors.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape; it is named.
    """
    try:
        matched: MatchedWeights = encoder.match_weights(state)  # type: ignore[operator]
    except WeightsError as cause:
        raise WeightsError(f"weights={source!r} for {of}: {cause}") from cause
    if not matched.report.is_complete:
        raise WeightsError(
            f"weights={source!r} do not fit {of}: {matched.report.problems}. If that is intended, build without them, and "
            "zoo.load_weights(model, weights, part='encoder', strict=False) loads what fits."
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
    """Return the prefix of the module's names in a file; None if the module is not there."""
    # Count under each prefix how many of the module's tensors are there by name, and how many fit by shape as well: every
    # part of a key that ends with one of the module's names may be the prefix.
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
    if not candidates:  # by its name, or else by more than chance: small modules are found anywhere
        tried = likely or [prefix for prefix, number in fitting.items() if 2 * number > num_wanted]
        most = max((fitting[prefix] for prefix in tried), default=0)
        candidates = [prefix for prefix in tried if fitting[prefix] == most]
    if len(candidates) > 1:
        prefixes = " and ".join(repr(prefix) if prefix else "none" for prefix in sorted(candidates)[:4])
        raise WeightsError(
            f"The weights fit under several prefixes alike: {prefixes}. Choose one: zoo.read_state_dict(path, "
            f"prefix={sorted(candidates)[-1]!r}) returns its tensors, for zoo.load_weights, or for torch.save."
        )
    return candidates[0] if candidates else None


def _ends_with(prefix: str, named: str) -> bool:
    """Say whether a prefix is that of a part of this name: `head.`, `model.segmentation_head.`."""
    last = prefix.removesuffix(".").rpartition(".")[2]
    return last == named or last.endswith(f"_{named}")


def is_same_kind(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor holds a kind of number that can become the wanted one without losing its meaning.

    Floats of 16 to 64 bits can become one another. Integers, booleans and floats of 8 bits are quantized weights, which mean
    nothing without their scale.
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
    """Raise if a module could not work with tensors: NaN, infinity in a weight or a statistic, or a negative variance.

    Infinity in another buffer may be an attention mask's.

    Args:
        tensors: of the module's names and shapes.
        module: the one that will hold them.
        source: their origin, as an error names it.

    Raises:
        WeightsError: the first of them is named.
    """
    parameters = dict(module.named_parameters())
    dtypes = {name: tensor.dtype for name, tensor in (*module.named_buffers(), *parameters.items())}
    for name, tensor in tensors.items():
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        last = name.rpartition(".")[2]
        held = tensor.to(dtypes.get(name, tensor.dtype))  # a float64 beyond float32 becomes infinity
        is_bad = ~held.isfinite() if name in parameters or last in NORMS_OWN else held.isnan()
        what = "NaN or infinity"
        if last == VARIANCE and not is_bad.any():
            is_bad, what = held < 0, "a variance below 0"
        if count := int(is_bad.sum()):
            raise WeightsError(
                f"{source}: {name} holds {what} in {count:,} of {tensor.numel():,} places, so that no prediction "
                "would mean anything. The training diverged, or the file is damaged; take an earlier checkpoint."
            )


def _fits(tensor: Tensor, wanted: Tensor) -> bool:
    return tensor.shape == wanted.shape and is_same_kind(tensor, wanted)


def _is_adaptable(tensor: Tensor, wanted: Tensor) -> bool:
    """Say whether a convolution's weight differs in its input channels alone, of which the file's has three."""
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
    """Return how many these are, and the first of them."""
    return f"{len(entries)} ({format_names(entries, SHOWN)})" if entries else "none"
