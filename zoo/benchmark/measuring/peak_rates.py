"""Measure the best rate of a device: FLOPs per second of matrix products and 3x3 convolutions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.benchmark.measuring.clock import calls_to_fill_a_slot, time_calls
from zoo.benchmark.messages import KernelRate

__all__ = ["best_rate", "measure_rates"]

LONGEST_CALL = 0.4
"""How many seconds one call of a kernel may take. A slower kernel is left out, since timing it would take a minute.

Such a kernel is too large for the device, or has no fast implementation there: bfloat16 on a processor without AVX-512 may take
up to 50 times as long as with a fast implementation."""

UNSUPPORTED = (RuntimeError, TypeError, AssertionError)
"""The errors that torch raises for an unsupported device, dtype or size. If memory runs out, torch raises a RuntimeError."""

Call: TypeAlias = Callable[[], Tensor]


def measure_rates(device: torch.device, dtype: str, *, seconds: float = 0.2) -> Iterator[KernelRate]:
    """Measure each kernel in "float32" or "bfloat16" for about `seconds` after a warm-up, and yield its rate.

    No single kernel is the fastest on every device: on some processors a convolution is faster than the matrix product, and
    the best memory layout differs. A kernel's rate is that of its fastest block of calls, because this rate should show the
    best that the device can do. Torch's number of threads and other settings are the same as for the models, so
    "float32" may mean TF32 on an accelerator. A kernel is skipped if the device cannot run it in this dtype, or needs more than
    `LONGEST_CALL` for a call.
    """
    for kernel in _kernels(device):
        fastest = _fastest_call(kernel, device, getattr(torch, dtype), seconds)
        if fastest is not None:
            yield KernelRate(kernel=kernel.name, dtype=dtype, flops_per_second=kernel.flops / fastest)


def best_rate(rates: Iterable[KernelRate]) -> KernelRate | None:
    """Return the highest of the rates; None if there are no rates."""
    return max(rates, key=lambda rate: rate.flops_per_second, default=None)


class _Kernel(Protocol):
    """A kernel to time."""

    @property
    def name(self) -> str: ...

    @property
    def flops(self) -> int: ...

    def smaller(self) -> _Kernel:
        """Return this kernel with a quarter of the side length."""

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Call:
        """Create the operands, and return a function that calls the kernel with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _MatrixProduct:
    """The product of two square matrices."""

    side: int

    @property
    def name(self) -> str:
        return f"matrix product {self.side}"

    @property
    def flops(self) -> int:
        return 2 * self.side**3

    def smaller(self) -> _MatrixProduct:
        return _MatrixProduct(side=self.side // 4)

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Call:
        left, right = _noise((2, self.side, self.side), device, dtype)
        return partial(torch.mm, left, right)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convolution:
    """A 3x3 convolution with the same number of input and output channels."""

    batch: int
    channels: int
    side: int
    layout: str

    @property
    def name(self) -> str:
        batch = f" batch {self.batch}" if self.batch > 1 else ""
        layout = " channels_last" if self.layout == "channels_last" else ""
        return f"3x3 convolution {self.channels}x{self.side}x{self.side}{batch}{layout}"

    @property
    def flops(self) -> int:
        return 2 * 9 * self.batch * self.channels**2 * self.side**2

    def smaller(self) -> _Convolution:
        return _Convolution(batch=self.batch, channels=self.channels, side=self.side // 4, layout=self.layout)

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Call:
        memory_format = torch.channels_last if self.layout == "channels_last" else torch.contiguous_format
        image = _noise((self.batch, self.channels, self.side, self.side), device, dtype).to(memory_format=memory_format)
        weight = _noise((self.channels, self.channels, 3, 3), device, dtype).to(memory_format=memory_format)
        return partial(F.conv2d, image, weight, padding=1)


def _kernels(device: torch.device) -> Iterator[_Kernel]:
    """Yield convolutions of shapes that segmentation models have, and a matrix product. Each keeps the whole device busy."""
    batch, side = (1, 2048) if device.type == "cpu" else (32, 8192)
    for channels, image_side in ((64, 128), (128, 64), (256, 32)):
        for layout in ("contiguous", "channels_last"):
            yield _Convolution(batch=batch, channels=channels, side=image_side, layout=layout)
    yield _MatrixProduct(side=side)


def _fastest_call(kernel: _Kernel, device: torch.device, dtype: torch.dtype, seconds: float) -> float | None:
    """Return the seconds per call of the fastest block of calls; None if the kernel is unsupported or too slow."""
    try:
        with torch.inference_mode():  # not around a generator's yield, where it would apply to the caller's code too
            if not _is_quick(kernel, device, dtype):
                return None
            call = kernel.prepare(device, dtype)
            time_calls(call, 1, device)  # the first call is cold
            calls, end = calls_to_fill_a_slot(time_calls(call, 1, device).seconds), time.perf_counter() + seconds
            fastest = time_calls(call, calls, device).seconds
            while time.perf_counter() < end:
                fastest = min(fastest, time_calls(call, calls, device).seconds)
            return fastest
    except UNSUPPORTED:
        return None


def _is_quick(kernel: _Kernel, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a call of a kernel takes less than `LONGEST_CALL`.

    The time is estimated from calls of a smaller kernel, since a call of the kernel itself could not be interrupted.
    """
    smaller = kernel.smaller()
    call = smaller.prepare(device, dtype)
    longest = LONGEST_CALL * smaller.flops / kernel.flops
    # several calls, since the first is cold and others may be disturbed
    return any(time_calls(call, 1, device).seconds < longest for _ in range(4))


def _noise(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return normally distributed noise from a new generator.

    With constant values, the device would need less power, and the kernel would run faster than it does in a model.
    """
    generator = torch.Generator(device=device).manual_seed(0)
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)
