"""Measure the numerical errors that TF32 causes in a model and in its deployed form: `python benchmarks/tf32.py`.

By default, a CUDA device rounds the inputs of its convolutions to TF32 (10 bits after the leading one). The columns named
"emulated" show the same on any device: for these, the script rounds the input and the weights of every convolution, and
computes in float32. On a GPU, the columns without "emulated" show the errors of the device itself. If these equal the emulated
errors, the device computes every convolution in TF32. If they are much smaller than the emulated errors, the device's library
chose float32 kernels for some convolutions at that size.

Errors are max|a - b| / max|b|, compared with the model's output in float64. The deployed program is the form of the model that
`zoo.deploy` makes. `zoo.deploy` runs the model itself instead if the program's error is above its tolerance and more than
`zoo.inference.reference.ROUNDINGS` times the model's own error.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.common.devices import choose_device
from zoo.inference.deployment.graph import capture
from zoo.inference.deployment.passes import PASSES, apply_passes
from zoo.inference.reference import ROUNDINGS, full_float32, relative_error

DECODERS = ("unet-basic", "unet-bilinear", "unet-attention", "smp:unet")
SIZES = ((64, 96), (65, 97), (127, 64), (256, 256))
DROPPED_BITS = 13
"""The number of bits that TF32 drops: it has 10 bits after the leading one, and float32 has 23."""


class EmulatedTF32(TorchDispatchMode):
    """A mode in which convolutions round their inputs and weights to TF32, and sum the products in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation. If it is a convolution, round its input and its weights first."""
        if func is torch.ops.aten.convolution.default:
            args = (rounded_to_tf32(args[0]), rounded_to_tf32(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def rounded_to_tf32(x: Tensor) -> Tensor:
    """Return float32 numbers rounded to the nearest TF32 number, ties to even."""
    bits = x.contiguous().view(torch.int32)
    half = (1 << (DROPPED_BITS - 1)) - 1 + ((bits >> DROPPED_BITS) & 1)
    return ((bits + half) & -(1 << DROPPED_BITS)).view(torch.float32)


def trained_like(encoder: str, decoder: str, seed: int = 0) -> nn.Module:
    """Return a model with random batch norm statistics. With its initial statistics, a batch norm would be the identity."""
    torch.manual_seed(seed)
    model = zoo.build(encoder, decoder, classes=2)
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


def emulated_errors(model: nn.Module, image: Tensor) -> tuple[float, float]:
    """Return the errors of a model and of its graph after the passes of `zoo.deploy`, both in emulated TF32."""
    graph = capture(model, image)
    apply_passes(graph, tuple(PASSES))
    expected = in_float64(model, image)
    with torch.no_grad(), full_float32(), EmulatedTF32():
        found = [run(image) for run in (model, graph.module)]
    return relative_error(found[0], expected), relative_error(found[1], expected)


def measured_errors(model: nn.Module, deployed: Callable[[Tensor], Tensor], image: Tensor) -> tuple[float, float]:
    """Return the errors of a model and of its deployed form, as the device computes them."""
    expected = in_float64(model, image)
    with torch.no_grad():
        return relative_error(model(image), expected), relative_error(deployed(image), expected)


def in_float64(model: nn.Module, image: Tensor) -> Tensor:
    """Return a model's output, computed in float64 and then rounded to float32."""
    with torch.no_grad():
        exact: Tensor = copy.deepcopy(model).double()(image.double())
    return exact.float()


def main() -> None:
    """Print a row for each decoder and size, and write the table to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    device = choose_device(asked.device)
    has_tf32 = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if has_tf32 else "emulated on a CPU"
    lines = [
        f"**Errors in TF32, {name}, torch {torch.__version__}; at most {ROUNDINGS} times the model's is accepted**",
        "",
        "| decoder | size | model, emulated | program, emulated | ratio | model | program | ratio | runs the model itself |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    print("\n".join(lines), flush=True)
    for decoder in asked.decoders:
        model = trained_like("resnet18", decoder).to(device)
        example = torch.randn(1, 3, *SIZES[0], generator=torch.Generator().manual_seed(1)).to(device)
        deployed = zoo.deploy(model, example=example, runtime="eager") if has_tf32 else None
        for size in SIZES:
            image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).to(device)
            own, program = emulated_errors(model, image)
            cells = [decoder, "x".join(map(str, size)), f"{own:.1e}", f"{program:.1e}", f"{program / own:.2f}"]
            if deployed is None:
                cells += ["not measured"] * 3 + [""]
            else:
                own, program = measured_errors(model, deployed, image)
                cells += [
                    f"{own:.1e}",
                    f"{program:.1e}",
                    f"{program / own:.2f}",
                    deployed.fallbacks.get(tuple(image.shape), "no"),
                ]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
