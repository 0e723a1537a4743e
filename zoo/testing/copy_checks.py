"""Checks of what a module is turned into: loaded, pickled, copied, exported, compiled, each time with the same output."""

from __future__ import annotations

import copy
import pickle
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from zoo.common.format_names import format_names
from zoo.testing.report import Finding, describe_error
from zoo.testing.snapshots import distance, same, scale
from zoo.testing.subject import Subject, call_seeded

__all__ = ["COPY_CHECKS", "compiles"]


def state_dict_round_trips(subject: Subject) -> None:
    """A state dict loaded into a fresh build gives the same output, bit for bit."""
    module, fresh = subject.module, subject.build(seed=1).eval()
    fresh.load_state_dict(copy.deepcopy(module.state_dict()))
    with torch.no_grad():
        expected, found = (subject.outputs(entry, subject.inputs()) for entry in (module, fresh))
    if not same(expected, found):
        raise Finding(
            expected="the same output, bit for bit, from a fresh build with the first one's state dict",
            found=f"outputs that differ by up to {distance(expected, found)}",
            remedy="register every tensor that matters as a parameter or a buffer (register_buffer), and none twice",
        )


def pickles(subject: Subject) -> None:
    """It can be pickled, as loading data in other processes and `torch.save` of a whole model do."""
    module: nn.Module = getattr(subject.whole, subject.kind)
    try:
        twin = pickle.loads(pickle.dumps(module))
    except Exception as cause:
        raise Finding(
            expected="pickle.loads(pickle.dumps(module)) gives an equal module",
            found=describe_error(cause),
            remedy="define classes and functions at the top of a module that can be imported (not in a function, no lambda), "
            "and keep no file, generator, lock or hook in an attribute",
        ) from cause
    _check_equal(subject, module, twin, "pickling")


def deep_copies(subject: Subject) -> None:
    """`copy.deepcopy` gives an equal module that shares nothing with the first."""
    module = subject.module
    twin = copy.deepcopy(module)
    _check_equal(subject, module, twin, "copy.deepcopy")
    shared = {entry.data_ptr() for entry in module.parameters() if entry.numel()}
    if both := [name for name, entry in twin.named_parameters() if entry.data_ptr() in shared]:
        raise Finding(
            expected="a deep copy has parameters of its own",
            found=f"shared with the first: {format_names(both)}",
            remedy="leave __deepcopy__ to torch.nn.Module",
        )


def exports(subject: Subject) -> None:
    """`torch.export` takes it, and what is exported gives the same numbers."""
    module, given = _ListInput(subject), subject.inputs()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # torch prints the whole graph where it fails
            exported = torch.export.export(module, (given,), strict=False).module()
    except Exception as cause:
        raise Finding(
            expected="torch.export.export(module, inputs, strict=False) gives a graph",
            found=describe_error(cause),
            remedy="compute with shapes and tensors alone: no .item(), no numpy, no branch on a tensor's value",
        ) from cause
    _check_close(module, exported, given, "the exported graph")


def compiles(subject: Subject) -> None:
    """`torch.compile` takes it as one graph (`fullgraph=True`), and what is compiled gives the same numbers."""
    module, given = _ListInput(subject), subject.inputs()
    torch._dynamo.reset()
    try:
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        _check_close(module, compiled, given, "the compiled module")
    except Finding:
        raise
    except Exception as cause:
        raise Finding(
            expected='torch.compile(module, backend="aot_eager", fullgraph=True) runs',
            found=describe_error(cause),
            remedy="leave out what breaks the graph: prints, .item(), numpy, branches on a tensor's value",
        ) from cause
    finally:
        torch._dynamo.reset()


class _ListInput(nn.Module):
    """A subject's build with one argument, the list of its inputs."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.inner = subject.module
        self.takes_list = subject.kind == "decoder"

    def forward(self, given: list[Tensor]) -> Any:
        return self.inner(given if self.takes_list else given[0])


def _check_equal(subject: Subject, module: nn.Module, twin: nn.Module, by: str) -> None:
    with torch.no_grad():
        expected, found = (subject.outputs(entry, subject.inputs()) for entry in (module, twin))
    if not same(expected, found):
        raise Finding(
            expected=f"the same output, bit for bit, after {by}",
            found=f"outputs that differ by up to {distance(expected, found)}",
            remedy="define no __reduce__, __getstate__ or __deepcopy__ that leaves something out",
        )


def _check_close(module: nn.Module, other: Any, given: list[Tensor], name: str) -> None:
    with torch.no_grad():
        expected, found = (
            [entry] if isinstance(entry, Tensor) else list(entry)
            for entry in (call_seeded(module, given), call_seeded(other, given))
        )
    if not all(torch.allclose(one, two, rtol=1e-3, atol=1e-3 * scale(one)) for one, two in zip(expected, found, strict=True)):
        raise Finding(
            expected=f"{name} gives what the module gives",
            found=f"outputs that differ by up to {distance(expected, found)}",
            remedy="let forward depend on its input alone; what is decided once when the graph is made stays so",
        )


COPY_CHECKS = (state_dict_round_trips, pickles, deep_copies, exports, compiles)
