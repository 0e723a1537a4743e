"""Run a module as it is, with temporary hooks that record what its submodules return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import PluginError
from zoo.model.probing.measurement import Layout, as_map, named_tensors

__all__ = ["Location", "RecordedEncoder", "record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a tensor appears in one call of a module: the submodule, which of its calls, and the key in what it returns."""

    path: str
    call: int
    key: str


@contextmanager
def record(module: nn.Module, paths: Iterable[str], put: Callable[[Location, Tensor], None]) -> Iterator[None]:
    """Call `put` with each tensor that the submodules return, by hooks that are removed afterwards."""
    calls: Counter[str] = Counter()

    def hook_of(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(submodule: nn.Module, arguments: Any, output: Any) -> None:
            calls[path] += 1
            for key, tensor in named_tensors(output):
                put(Location(path=path, call=calls[path], key=key), tensor)

        return hook

    handles = []
    try:
        for path in dict.fromkeys(paths):
            handles.append(module.get_submodule(path).register_forward_hook(hook_of(path)))  # noqa: PERF401 (removed if one fails)
        yield
    finally:
        for handle in handles:
            handle.remove()


class _AllFound(BaseException):
    """Ends a forward pass early; no `except Exception` in the module's code may take it for an error."""


@contextmanager
def _uncounted_calls() -> Iterator[None]:
    """Hide calls of modules from torch.export's tracer, which loses count of them where an exception ends several at once."""
    traced = nn.Module.__call__
    nn.Module.__call__ = nn.Module._call_impl  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = traced  # type: ignore[method-assign]


class RecordedEncoder(nn.Module):
    """A module that torch.fx cannot trace, run as it is up to its last map; the maps are what its submodules return.

    Hooks are on the submodules only while `forward` runs, and results in its locals; two threads must not run it at once.
    It pickles and copies where the module does. `torch.compile` leaves it eager, and `fullgraph=True` it cannot.
    `torch.export.export` with strict=False takes it where it takes the module up to its last map; with strict=True it cannot.
    """

    def __init__(self, module: nn.Module, locations: Sequence[Location], layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.module = module
        self.locations = tuple(locations)
        self.layouts = tuple(layouts)
        self.training = module.training

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps, NCHW, fine to coarse.

        Raises:
            PluginError: the module ran without computing one of the maps.
        """
        found: dict[Location, Tensor] = {}
        wanted = set(self.locations)

        def put(location: Location, tensor: Tensor) -> None:
            if location in wanted:
                found[location] = tensor
                if len(found) == len(wanted):
                    raise _AllFound

        calls = _uncounted_calls() if torch.compiler.is_compiling() else nullcontext()
        with calls, record(self.module, (location.path for location in self.locations), put), suppress(_AllFound):
            self.module(image)
        if missing := [location.path or f"output {location.key}" for location in self.locations if location not in found]:
            raise PluginError(
                f"{type(self.module).__name__} gave no map at {', '.join(missing)} for an image of shape {tuple(image.shape)} "
                f"in {'train' if self.training else 'eval'} mode, and gave one when it was probed. Its forward must call the "
                "same submodules and return the same structure for every image and in both modes."
            )
        return [as_map(found[location], image, layout) for location, layout in zip(self.locations, self.layouts, strict=True)]
