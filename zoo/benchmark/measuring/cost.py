"""Compute a trial's costs that need no measurement: parameters, FLOPs and the peak of live tensors."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.benchmark.measuring.operations import OperationCounter
from zoo.benchmark.measuring.steps import build_subject, make_step
from zoo.benchmark.messages import StaticCost
from zoo.benchmark.operation import total_flops
from zoo.benchmark.trial import Trial
from zoo.common.foreign_code import no_exits
from zoo.model.model import SegmentationModel
from zoo.model.parameters import count_parameters

__all__ = ["LiveTensors", "static_cost"]

META = torch.device("meta")
CPU = torch.device("cpu")


@no_exits("A call of the model")
def static_cost(trial: Trial, device: torch.device = CPU) -> StaticCost:
    """Return a trial's costs that are computed and not measured. The model is run on the meta device, or else on the CPU.

    Live tensors are tracked only if `device` is the CPU. Tracking them takes as long as computing all other costs, and on an
    accelerator it is not needed, since the allocator counts the memory during the measurement. Autocast has no effect on the
    meta device, so the model of a bfloat16 trial is also run on the CPU to track its live tensors. The costs are those of the
    eager model, because the tensors of a compiled model cannot be tracked.

    Raises:
        ZooError: the model cannot be built, not even on the CPU, or its code tried to end the program.
        Exception: any other exception that the model raises on the CPU.
    """
    eager = replace(trial, runtime="eager", name="", role="candidate")
    is_followed = device.type == "cpu"
    try:
        cost = _cost_on_meta(replace(eager, dtype="float32"), is_followed)
    except Exception:  # noqa: BLE001 - a plugin's model may raise anything on meta, and still run on the CPU
        return _cost_on(CPU, eager, is_followed)
    if trial.dtype == "float32" or not is_followed:
        return cost
    return replace(cost, live_bytes=_count_step(_build(CPU, eager), CPU, eager, is_followed)[1])


@lru_cache(maxsize=1024)
def _cost_on_meta(trial: Trial, is_followed: bool) -> StaticCost:
    """Return the costs on the meta device. The costs are cached, so trials that differ only in dtype or runtime share them."""
    return _cost_on(META, trial, is_followed)


def _cost_on(device: torch.device, trial: Trial, is_followed: bool = True) -> StaticCost:
    model = _build(device, trial)
    plan = model.plan.as_dict() if isinstance(model, SegmentationModel) else None
    step_flops, live_bytes = _count_step(model, device, trial, is_followed)
    single = replace(trial, batch=1, mode="inference")
    return StaticCost(
        parameters=count_parameters(model),
        flops=step_flops if single == trial else _count_step(model, device, single, is_followed=False)[0],
        step_flops=step_flops,
        live_bytes=live_bytes,
        parts=_parts(model),
        plan=plan,
    )


def _count_step(model: nn.Module, device: torch.device, trial: Trial, is_followed: bool) -> tuple[int, int | None]:
    """Run a trial's step, and return its FLOPs and the peak of its live tensors in bytes; None if they are not tracked."""
    step = make_step(model, trial, device)
    live = LiveTensors(model) if is_followed else None
    with OperationCounter() as counter, live or nullcontext():
        step()
    if live and trial.mode == "training":
        with live:
            step()  # the optimizer's state exists from the second step on
    return total_flops(counter.operations), live.peak if live else None


def _parts(model: nn.Module) -> dict[str, int] | None:
    if not isinstance(model, SegmentationModel):
        return None
    parts = {name: count_parameters(getattr(model, name)) for name in ("encoder", "adapters", "decoder", "head")}
    return {**parts, "head": parts["head"] + count_parameters(model.aux_heads)}


def _build(device: torch.device, trial: Trial) -> nn.Module:
    with device:
        return build_subject(trial)


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks every tensor storage that is used while the mode is active, and records the peak of their total size.

    The weights and buffers of `model` count from the start. Other tensors count from their first use until they are freed.
    A storage counts once, even if several views share it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._follow([*model.parameters(), *model.buffers()])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and track its arguments and its result."""
        kwargs = kwargs or {}
        self._follow([args, kwargs])
        result = func(*args, **kwargs)
        self._follow(result)
        return result

    def _follow(self, tree: Any) -> None:
        for leaf in tree_leaves(tree):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            if storage in self._known:
                continue
            self._known.add(storage)
            size = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._released, size)

    def _released(self, size: int) -> None:
        self.live -= size
