"""Compare the low-resolution form of `zoo.plugin.UpsampledConv2d` with the plain form: `python benchmarks/lowres.py`.

The plain form upsamples a map and then applies a 3x3 convolution. The low-resolution form computes the same result without
upsampling. The blocks are those of smp.Unet("resnet18"). Both forms have the same weights, and their outputs are compared
before they are timed. Each round runs both, in random order, so disturbances of the machine affect both equally. A ratio is the
time of the plain form divided by the time of the low-resolution form. Above 1, the low-resolution form is faster. The 95 %
interval of the ratio follows in parentheses.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from turns import seconds_by_turns

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.common.devices import choose_device
from zoo.common.statistics import estimate_ratio
from zoo.model.layers.upsampled_conv import pays_at_low_resolution

BLOCKS = ((512, 256, 256, 32), (256, 128, 128, 16), (128, 64, 64, 8), (64, 64, 32, 4), (32, 0, 16, 2))
"""For each block: the channels of the upsampled map, of the skip and of the output; and the map's stride before upsampling."""

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


CALLS = 20
"""On an accelerator, a sample is the total time of this many successive calls, so that the accelerator is always busy."""


def made_steps(
    block: tuple[int, int, int, int], size: int, batch: int, layout: str, mode: str, device: torch.device
) -> list[Callable[[], None]]:
    """Return two functions: one calls the plain form, the other calls the low-resolution form.

    Before this, compare the outputs of the two forms, and exit if they differ too much.
    """
    up, skip, out, factor = block
    calls = calls_of(device)
    side, format = size // factor, LAYOUTS[layout]
    torch.manual_seed(0)
    tensors: list[Tensor] = [torch.randn(batch, up, side, side).to(device, memory_format=format)]
    if skip:
        tensors.append(torch.randn(batch, skip, 2 * side, 2 * side).to(device, memory_format=format))
    steps, outputs = [], []
    plain = zoo.plugin.UpsampledConv2d(up, skip, out, bias=False, form="plain").to(device, memory_format=format)
    for form in ("plain", "low"):
        conv = zoo.plugin.UpsampledConv2d(up, skip, out, bias=False, form=form).to(device, memory_format=format)
        conv.load_state_dict(plain.state_dict())
        inputs = [tensor.clone().requires_grad_(mode == "training") for tensor in tensors]
        outputs.append(conv(*inputs).detach())
        gradient = torch.ones_like(outputs[-1])

        def forward(conv: torch.nn.Module = conv, inputs: list[Tensor] = inputs) -> None:
            with torch.inference_mode():
                for _ in range(calls):
                    conv(*inputs)

        def training(conv: torch.nn.Module = conv, inputs: list[Tensor] = inputs, gradient: Tensor = gradient) -> None:
            for _ in range(calls):
                conv.zero_grad()
                for tensor in inputs:
                    tensor.grad = None
                conv(*inputs).backward(gradient)

        steps.append(training if mode == "training" else forward)
    error = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    if error > (1e-5 if device.type == "cpu" else 1e-2):  # accelerators round to TF32
        raise SystemExit(f"The two forms differ by {error:.1e} for {block} at {size}.")
    return steps


def calls_of(device: torch.device) -> int:
    """Return the number of successive calls whose total time is one sample."""
    return 1 if device.type == "cpu" else CALLS


def main() -> None:
    """Measure all blocks, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("inference", "training"), default="inference")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, nargs="+", default=[256])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else describe_environment(device).device_name
    print(f"{asked.mode}, batch {asked.batch}, {where}, torch {torch.__version__}")
    print("| image | layout | up, skip, out | low-resolution pixels | plain, ms | low, ms | ratio (95 %) | chosen |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in asked.size:
        for layout in LAYOUTS:
            for block in BLOCKS:
                steps = made_steps(block, size, asked.batch, layout, asked.mode, device)
                times = seconds_by_turns(steps, asked.rounds, device)
                ratio = estimate_ratio(*times)
                calls = calls_of(device)
                plain, low = (1e3 * sorted(samples)[len(samples) // 2] / calls for samples in times)
                side = size // block[3]
                chosen = "low" if pays_at_low_resolution(asked.batch, side, side, device=device) else "plain"
                print(
                    f"| {size} | {layout} | {', '.join(map(str, block[:3]))} | {asked.batch * side * side} "
                    f"| {plain:.3g} | {low:.3g} | {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) | {chosen} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
