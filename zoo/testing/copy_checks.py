"""Checks that the output stays the same after loading a state dict, pickling, copying, exporting or compiling a module."""

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
    """A new module that loads the state dict of the module under test returns the same output, bit for bit."""
    module, fresh = subject.module, subject.build(seed=1).eval()
    fresh.load_state_dict(copy.deepcopy(module.state_dict()))
    with torch.no_grad():
        expected, found = (subject.outputs(entry, subject.inputs()) for entry in (module, fresh))
    if not same(expected, found):
        raise Finding(
            expected="the same output, bit for bit, from a new module with the state dict of the first",
            found=f"outputs that differ by up to {distance(expected, found)}",
            remedy="register every tensor that affects the output as a parameter or a buffer (register_buffer), but only once",
        )


def pickles(subject: Subject) -> None:
    """The module can be pickled, and the unpickled module returns the same output, bit for bit.

    Code that saves a whole model with `torch.save` pickles the model's modules. Data loading in other processes may pickle
    them, too.
    """
    module: nn.Module = getattr(subject.whole, subject.kind)
    try:
        twin = pickle.loads(pickle.dumps(module))
    except Exception as cause:
        raise Finding(
            expected="pickle.loads(pickle.dumps(module)) returns an equal module",
            found=describe_error(cause),
            remedy="define classes and functions at the top level of an importable file (not in a function, no lambda), "
            "and store no file, generator, lock or hook in an attribute",
        ) from cause
    _check_equal(subject, module, twin, "pickling")


def deep_copies(subject: Subject) -> None:
    """A deep copy of the module returns the same output, bit for bit, and shares no parameters with the original."""
    module = subject.module
    twin = copy.deepcopy(module)
    _check_equal(subject, module, twin, "copy.deepcopy")
    shared = {entry.data_ptr() for entry in module.parameters() if entry.numel()}
    if both := [name for name, entry in twin.named_parameters() if entry.data_ptr() in shared]:
        raise Finding(
            expected="a deep copy with parameters of its own",
            found=f"shared with the original: {format_names(both)}",
            remedy="define no __deepcopy__; without it, copy.deepcopy copies all parameters",
        )


def exports(subject: Subject) -> None:
    """`torch.export` accepts the module, and the exported graph returns the same values, up to rounding."""
    module, given = _ListInput(subject), subject.inputs()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # torch prints the whole graph if the export fails
            exported = torch.export.export(module, (given,), strict=False).module()
    except Exception as cause:
        raise Finding(
            expected="torch.export.export(module, inputs, strict=False) returns a graph",
            found=describe_error(cause),
            remedy="compute only with shapes and tensors: no .item(), no numpy, no branch on a tensor's value",
        ) from cause
    _check_close(module, exported, given, "the exported graph")


def compiles(subject: Subject) -> None:
    """`torch.compile` accepts the module as one graph, and the compiled module returns the same values, up to rounding."""
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
            remedy="remove code that breaks the graph: prints, .item(), numpy, branches on a tensor's value",
        ) from cause
    finally:
        torch._dynamo.reset()


class _ListInput(nn.Module):
    """Wraps a subject's module. The only argument of `forward` is the list of inputs."""

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
            expected=f"the same output from {name} as from the module",
            found=f"outputs that differ by up to {distance(expected, found)}",
            remedy="let forward depend only on its input; a decision made while the graph is built is never made again",
        )


COPY_CHECKS = (state_dict_round_trips, pickles, deep_copies, exports, compiles)
