"""Read from the signature of a decoder's `forward` how many maps it takes, and whether it takes a list."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_origin

from torch import Tensor

from zoo.errors import RegistrationError
from zoo.registry.pyramid import Needs

__all__ = ["ForwardInputs", "format_needs", "inputs_of", "merge_needs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardInputs:
    """How many maps a `forward` takes: at least `fewest`, at most `most` (None for no maximum).

    It takes them as one list if `takes_list` is True, and otherwise as separate arguments.
    """

    fewest: int = 1
    most: int | None = None
    takes_list: bool = False

    def allows(self, count: int) -> bool:
        """Return whether `forward` takes this many maps."""
        return self.fewest <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most == self.fewest:
            return f"{self.most} map{'s' if self.most > 1 else ''}"
        return f"at least {self.fewest} maps" if self.most is None else f"{self.fewest} to {self.most} maps"


def inputs_of(forward: Callable[..., Any] | None) -> ForwardInputs:
    """Return what a class's `forward` takes. A `forward` that is not known yet (None) may take any number of maps."""
    if forward is None:
        return ForwardInputs()
    try:
        signature = inspect.signature(forward, eval_str=True)
    except Exception:  # noqa: BLE001 - an annotation cannot be evaluated here, so its text is read
        signature = inspect.signature(forward)
    parameters = list(signature.parameters.values())[1:]
    named = [
        entry
        for entry in parameters
        if entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD) and entry.default in (entry.empty, None)
    ]
    required = [entry for entry in named if entry.default is entry.empty]
    if any(entry.kind is entry.VAR_POSITIONAL for entry in parameters):
        return ForwardInputs(fewest=max(1, len(required)))
    if named and len(required) <= 1 and _is_list(named[0].annotation, unless_said=len(named) == 1):
        return ForwardInputs(takes_list=True)
    return ForwardInputs(fewest=max(1, len(required)), most=max(1, len(named)))


def _is_list(annotation: object, *, unless_said: bool) -> bool:
    """Return whether an input is annotated as a list of maps.

    Args:
        annotation: the annotation of the input.
        unless_said: what to return if the annotation says neither that the input is a list nor that it is a tensor.
    """
    if annotation is Tensor or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Tensor"):
        return False
    if isinstance(annotation, str):
        name = annotation.partition("[")[0].rpartition(".")[2].lower()
        return name in ("list", "tuple", "sequence") or unless_said
    return (get_origin(annotation) or annotation) in (list, tuple, Sequence) or unless_said


def merge_needs(needs: Needs | None, inputs: ForwardInputs, origin: str) -> Needs:
    """Return the user's needs, limited to the number of maps that `forward` takes.

    If `needs` is None, this number is the only need.
    """
    if needs is None:
        return Needs(min_levels=inputs.fewest, max_levels=inputs.most, distinct_strides=False)
    if not isinstance(needs, Needs):
        raise RegistrationError(f"{origin}: `needs` must be a zoo.Needs; found {needs!r}.")
    image = int(needs.image)  # the image is the first map, but not a level
    named = None if needs.one_stride or needs.strides is None else len(needs.strides)
    counts = [count + image for count in (needs.max_levels, named) if count is not None]
    if any(not inputs.allows(count) for count in counts):
        raise RegistrationError(
            f"{origin}: its forward takes {inputs}, but its needs allow {min(counts)}. Pass {format_needs(inputs.fewest)}."
        )
    most = needs.max_levels if counts or inputs.most is None else inputs.most - image
    return replace(needs, min_levels=max(needs.min_levels, inputs.fewest - image), max_levels=most)


def format_needs(count: int) -> str:
    """Return Python code for an example `Needs` with `count` strides, such as `needs=zoo.Needs(strides=(16, 32))`."""
    finest = max(0, 6 - count)
    strides = ", ".join(str(2**level) for level in range(finest, finest + count))
    return f"needs=zoo.Needs(strides=({strides}{',' if count == 1 else ''}))"
