"""The subject of the checks: an encoder or decoder that can be built any number of times, and inputs for it."""

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
    """An encoder or a decoder under test, with everything that the checks for both kinds use.

    Attributes:
        kind: "encoder" or "decoder".
        id: the id under which it is registered.
        entry: its entry in the registry.
        options: the options that it is checked with.
        first_seen: the entry's spec as text, and a copy of the spec's constants. Both were taken before any check ran.
    """

    kind: Kind
    id: str
    entry: Entry[Any]
    options: Mapping[str, Any]
    first_seen: tuple[str, dict[str, Any]]

    @cached_property
    def module(self) -> nn.Module:
        """A module that is built once, in eval mode, and shared by the checks that do not change it."""
        return self.build().eval()

    @cached_property
    def trainee(self) -> nn.Module:
        """A module that is built once, in train mode, and shared by the checks that do not change its weights."""
        return self.build().train()

    @cached_property
    def whole(self) -> SegmentationModel:
        """A whole model that is built once, in eval mode, and shared by the checks that do not change it."""
        return self.model().eval()

    def build(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> nn.Module:
        """Build a new module in train mode, by default with the subject's options."""

    def build_differently(self) -> nn.Module:
        """Build a module with different shapes: a decoder for a different pyramid, or an encoder with different maps."""

    def model(self, classes: int = 3) -> SegmentationModel:
        """Build a whole model, as `zoo.build` does, from the subject and a stub (a minimal decoder or encoder)."""

    def inputs(self, batch: int = 2, *, other: bool = False, seed: int = 0) -> list[Tensor]:
        """Return random inputs for `module`. With `other`, they are for a larger image if the module accepts several sizes."""

    def outputs(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Run a module and return all its output maps."""


def snapshot_facts(entry: Entry[Any]) -> tuple[str, dict[str, Any]]:
    """Return an entry's spec as text, and a copy of the constants that are passed to its factory."""
    return repr(entry.spec), copy.deepcopy(dict(entry.spec.constants))


def factory_of(entry: Entry[Any]) -> Callable[..., Any]:
    """Return an entry's factory. If the spec has only the factory's import path, import it first."""
    factory = entry.spec.factory
    return pkgutil.resolve_name(factory) if isinstance(factory, str) else factory  # type: ignore[no-any-return]


def call_factory(entry: Entry[Any], seed: int, *arguments: Any, **keywords: Any) -> nn.Module:
    """Seed all generators, call the factory directly with the arguments, and return the module in train mode."""
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
    """Call a module after setting a fixed seed, so that its random numbers are the same in each call."""
    seed_all(0)
    return module(given)


def on_meta_or_real(attempt: Callable[[str], _T]) -> _T:
    """Return `attempt("meta")`. If it fails, return `attempt("cpu")`: the code may need values, which meta tensors lack."""
    try:
        with torch.device("meta"):
            return attempt("meta")
    except Exception:  # noqa: BLE001 - the attempt with tensor values counts
        return attempt("cpu")
