"""Run an unchanged module with temporary hooks that record the outputs of its submodules."""

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
    """The origin of a tensor in one call of a module.

    Attributes:
        path: the path of the submodule that returned the tensor.
        call: which call of the submodule returned the tensor, counted from 1.
        key: the key of the tensor in the submodule's output.
    """

    path: str
    call: int
    key: str


@contextmanager
def record(module: nn.Module, paths: Iterable[str], put: Callable[[Location, Tensor], None]) -> Iterator[None]:
    """Call `put` with each tensor that the submodules return, using hooks that are removed afterwards."""
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
    """Raised to end a forward pass early. An `except Exception` in the module's code does not catch it."""


@contextmanager
def _uncounted_calls() -> Iterator[None]:
    """Hide module calls from torch.export's tracer, which loses count of them if an exception ends several at once."""
    traced = nn.Module.__call__
    nn.Module.__call__ = nn.Module._call_impl  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = traced  # type: ignore[method-assign]


class RecordedEncoder(nn.Module):
    """An encoder that runs an unchanged module up to its last map, for a module that torch.fx cannot trace.

    The maps are outputs of submodules or of the module. Hooks on the submodules exist only while `forward` runs, so two threads
    must not run the encoder at once. The encoder can be pickled and copied if the module can. `torch.compile` runs the encoder
    eagerly, and fails with `fullgraph=True`. `torch.export.export` fails with `strict=True`. With `strict=False`, it can export
    the encoder if the part of the module up to the last map can be exported.
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
                f"{type(self.module).__name__} returned no map at {', '.join(missing)} for an image of shape "
                f"{tuple(image.shape)} in {'train' if self.training else 'eval'} mode, although it returned one there when "
                "it was probed. Its forward must call the same submodules and return the same structure for every image and in "
                "both modes."
            )
        return [as_map(found[location], image, layout) for location, layout in zip(self.locations, self.layouts, strict=True)]
