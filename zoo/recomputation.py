"""Norm and ReLU in training, their output recomputed where a later layer's gradient needs it, and not kept.

A convolution keeps its input for its gradient, a norm likewise: behind each convolution, norm and ReLU lie two maps of one
size, of which the second follows from the first by a scale and a shift a channel. Here the first alone is kept, as in
memory-efficient DenseNets (Pleiss et al. 2017, arXiv:1707.06990), and whatever would keep the second keeps a handle to it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["norm_relu", "recomputed_activations"]

ATEN = torch.ops.aten
DEVICES = ("cpu", "meta")
"""Where making an output anew costs no more time than keeping it; on an NVIDIA H200 a training step took 8 to 17 % more."""
_Module = TypeVar("_Module", bound=nn.Module)


class _Activation:
    """What stands for a rectified norm's output in the graph: it makes the output anew, once, from what the norm keeps."""

    def __init__(self, norm: Any) -> None:
        self._norm = weakref.ref(norm)  # its node in the graph, alive as long as a later one is
        self._facts: tuple[Any, ...] = ()
        self._output: Tensor | None = None

    def describe(self, output: Tensor) -> None:
        """Note what the output looks like."""
        self._facts = (output.shape, output.stride(), output.dtype, output._version)

    def stands_for(self, tensor: Tensor) -> bool:
        """Whether a tensor over the output's memory is the output, as it was."""
        return self._facts == (tensor.shape, tensor.stride(), tensor.dtype, tensor._version)

    def output(self) -> Tensor:
        """Return the output."""
        if self._output is None:
            norm = self._norm()
            assert norm is not None
            self._output = _rectified(*norm.saved_tensors, eps=norm.eps)
        return self._output

    def taken(self) -> Tensor:
        """Return the output, and keep it no more: the last that needs it has had it."""
        output, self._output = self.output(), None
        return output


_Known: TypeAlias = "weakref.WeakKeyDictionary[torch.UntypedStorage, _Activation]"
_known: ContextVar[_Known | None] = ContextVar("known", default=None)


@contextlib.contextmanager
def recomputed_activations(*, is_on: bool) -> Iterator[None]:
    """Let `norm_relu` within keep one map and not two. Nothing changes where others' hooks on saved tensors are in force."""
    if not (is_on and torch.is_grad_enabled()) or _is_traced() or _has_hooks():
        yield
        return
    known: _Known = weakref.WeakKeyDictionary()

    def pack(tensor: Tensor) -> Tensor | _Activation:
        activation = known.get(tensor.untyped_storage())
        return activation if activation is not None and activation.stands_for(tensor) else tensor

    def unpack(kept: Tensor | _Activation) -> Tensor:
        return kept.output() if isinstance(kept, _Activation) else kept

    token = _known.set(known)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _known.reset(token)


def norm_relu(norm: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    """Return `relu(norm(x))`, (N, C, H, W) -> (N, C, H, W), with less kept for the gradient.

    In a decoder of a model that `zoo.build` made, for a batch norm and a ReLU in train mode on the CPU, what the ReLU gives is
    made anew where a gradient needs it. Anything else is computed module by module.
    """
    known = None if torch.compiler.is_compiling() else _known.get()  # whose look-up a compiler may not read
    if known is None or not (_is_usual(norm) and _is_plain(relu, nn.ReLU) and x.requires_grad and x.device.type in DEVICES):
        return relu(norm(x))  # type: ignore[no-any-return]
    norm._check_input_dim(x)
    count = norm.num_batches_tracked
    assert count is not None  # like the running statistics
    count.add_(1)
    momentum = 1 / float(count) if norm.momentum is None else norm.momentum
    x = _Norm.apply(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, momentum, norm.eps)
    activation = _Activation(x.grad_fn)
    output: Tensor = _Rectified.apply(x, activation)
    activation.describe(output)
    known[output.untyped_storage()] = activation
    return output


class _Norm(torch.autograd.Function):
    """A batch norm by the batch's statistics (Ioffe and Szegedy 2015, arXiv:1502.03167), and what its output follows from."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, momentum: float, eps: float
    ) -> Tensor:
        output, batch_mean, batch_invstd = torch.native_batch_norm(x, weight, bias, mean, variance, True, momentum, eps)
        ctx.save_for_backward(x, weight, bias, batch_mean, batch_invstd)
        ctx.eps = eps
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _, mean, invstd = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        given = ATEN.native_batch_norm_backward(gradient, x, weight, None, None, mean, invstd, True, ctx.eps, wanted)
        return (*given, None, None, None, None)


class _Rectified(torch.autograd.Function):
    """A ReLU in place that keeps nothing: its output is made anew."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: _Activation) -> Tensor:
        ctx.mark_dirty(x)
        ctx.activation = activation
        return x.relu_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # for a gradient's own gradient
            return ATEN.threshold_backward(gradient, ctx.activation.output(), 0), None
        output = ctx.activation.taken()  # its memory takes the gradient
        return ATEN.threshold_backward.grad_input(gradient, output, 0, grad_input=output), None


def _rectified(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, *, eps: float) -> Tensor:
    with torch.no_grad():
        variance = invstd.double().pow(-2).sub(eps).to(invstd.dtype)
        output: Tensor = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        return output.relu_()


def _is_traced() -> bool:
    is_read = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return is_read or torch._C._get_tracing_state() is not None


def _has_hooks() -> bool:
    """Whether somebody's hooks decide what is kept already (checkpointing, offloading), or a functional transform runs."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    peek = getattr(torch._C._functorch, "peek_interpreter_stack", None)
    return top is None or peek is None or top(True) is not None or peek() is not None


def _is_usual(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a norm takes the batch's own statistics and learns running ones."""
    return _is_plain(norm, nn.BatchNorm2d) and norm.training and norm.affine and norm.running_mean is not None


def _is_plain(module: nn.Module, kind: type[_Module]) -> TypeGuard[_Module]:
    """Whether a module is of a class, and nobody listens to its calls."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) is kind and not any(hooks)
