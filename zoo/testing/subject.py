"""What the checks look at: one encoder or decoder that can be built again and again, with inputs of its own."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from zoo.model.model import SegmentationModel
from zoo.registry.registry import Entry, Kind
from zoo.testing.report import Finding
from zoo.testing.surroundings import seed as seed_all

__all__ = ["Subject", "call_factory", "call_seeded", "factory_of", "on_meta_or_real", "snapshot_facts"]

_T = TypeVar("_T")


class Subject(Protocol):
    """What the checks for both kinds ask of an encoder or a decoder."""

    kind: Kind
    id: str
    entry: Entry[Any]
    options: Mapping[str, Any]
    first_seen: tuple[str, dict[str, Any]]

    @cached_property
    def module(self) -> nn.Module:
        """One build, in eval mode, for the checks that leave it as it is."""
        return self.build().eval()

    @cached_property
    def trainee(self) -> nn.Module:
        """Another build, for the checks that run it in train mode and leave its weights as they are."""
        return self.build().train()

    @cached_property
    def whole(self) -> SegmentationModel:
        """One `model()`, for the checks that leave it as it is."""
        return self.model().eval()

    def build(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> nn.Module:
        """Build a new module in train mode; by default with the subject's options."""

    def build_differently(self) -> nn.Module:
        """Build what has other shapes: for another pyramid, or with other maps."""

    def model(self, classes: int = 3) -> SegmentationModel:
        """Build a whole model the way `zoo.build` does, with a stub on the other side."""

    def inputs(self, batch: int = 2, *, other: bool = False, seed: int = 0) -> list[Tensor]:
        """Return random input for the usual build; `other` is of another size, where another is taken."""

    def outputs(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Run a build and return every map it gives."""


def snapshot_facts(entry: Entry[Any]) -> tuple[str, dict[str, Any]]:
    """Return a spec as text, and a copy of the constants it hands to its factory."""
    return repr(entry.spec), copy.deepcopy(dict(entry.spec.constants))


def factory_of(entry: Entry[Any]) -> Callable[..., Any]:
    """Return the factory, imported."""
    factory = entry.spec.factory
    return pkgutil.resolve_name(factory) if isinstance(factory, str) else factory  # type: ignore[no-any-return]


def call_factory(entry: Entry[Any], seed: int, *arguments: Any, **keywords: Any) -> nn.Module:
    """Call the factory itself, as it stands in the contract, from this seed."""
    seed_all(seed)
    module = factory_of(entry)(*arguments, **keywords)
    if not isinstance(module, nn.Module):
        raise Finding(
            expected="the factory returns a torch.nn.Module",
            found=repr(module),
            remedy="return the module from the factory",
        )
    return module.train()


def call_seeded(module: nn.Module, given: Any) -> Any:
    """Call a module from a fixed seed, so that what it draws is the same each time."""
    seed_all(0)
    return module(given)


def on_meta_or_real(attempt: Callable[[str], _T]) -> _T:
    """Return what `attempt("meta")` does, or `attempt("cpu")` where the code under test needs numbers."""
    try:
        with torch.device("meta"):
            return attempt("meta")
    except Exception:  # noqa: BLE001 - real tensors decide
        return attempt("cpu")
