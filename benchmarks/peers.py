"""Compare zoo's U-Net with other libraries', with the same weights where possible: `python benchmarks/peers.py`.

All rows of one block (mode, batch, size) run in the same rounds, in random order, so disturbances of the machine affect all
rows equally. A ratio is the time of `smp.Unet` divided by the time of the row's model. Above 1, the row's model is faster. The
95 % interval of the ratio follows in brackets.

Models with smp's weights are compared with smp's model before anything is timed: in inference by their outputs, and in
training (forward, loss, backward, AdamW) by the losses of ten steps.

U-Nets of other libraries run with other weights, if the libraries are installed (the extra `peers`). Their options are chosen
so that they resemble smp's U-Net as far as possible. The numbers of parameters show what still differs: torchseg's U-Net is the
same network, MONAI's has shortcuts without weights in its encoder, and fastai's decoder has six times the parameters.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import seconds_by_turns

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.common.devices import choose_device
from zoo.common.statistics import estimate_ratio
from zoo.inference.deployment.choice import ORIGINAL
from zoo.inference.reference import reference_of, relative_error
from zoo.inference.runtimes import RUNTIMES, has_bfloat16, suits

WIDTHS = (256, 128, 64, 32, 16)
LOSSES = 10


@dataclass(frozen=True)
class Way:
    """One way to run a U-Net on a ResNet18.

    Attributes:
        name: the library and, if several ways use it, what distinguishes this way from the others: runtime, memory format or
            precision.
        step: a function that predicts once, or performs one training step.
        error: the difference from smp's result; None for a model with other weights.
        num_parameters: the number of the model's parameters.
    """

    name: str
    step: Callable[[], object]
    error: float | None
    num_parameters: int


def smp_unet() -> nn.Module:
    """Return smp's U-Net with random batch norm statistics. With its initial statistics, a batch norm would be the identity."""
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, decoder_channels=WIDTHS)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model


def monai_unet() -> nn.Module:
    """Return MONAI's U-Net without padding and without the convolution before each upsampling: smp's U-Net has neither."""
    from monai.networks.nets import FlexibleUNet

    return FlexibleUNet(3, 1, "resnet18", decoder_channels=WIDTHS, pre_conv=None, is_pad=False)


def torchseg_unet() -> nn.Module:
    """Return torchseg's U-Net."""
    import torchseg

    return torchseg.Unet("resnet18", encoder_weights=None, decoder_channels=WIDTHS)


def fastai_unet() -> nn.Module:
    """Return fastai's U-Net, whose numbers of channels follow from those of the encoder."""
    from fastai.vision.learner import create_unet_model
    from torchvision.models import resnet18

    return create_unet_model(resnet18, 1, (256, 256), pretrained=False)


def others() -> Iterator[tuple[str, nn.Module | Exception]]:
    """For each other library that is installed, yield its name and its U-Net on a ResNet18.

    If the U-Net cannot be built or run, yield the error instead of the U-Net.
    """
    peers = (("monai", "FlexibleUNet", monai_unet), ("torchseg", "Unet", torchseg_unet), ("fastai", "DynamicUnet", fastai_unet))
    for package, name, build in peers:
        if find_spec(package) is None:
            continue
        try:
            name = f"{package} {version(package)} {name}"
            model = build().eval()
            with torch.no_grad():
                model(torch.zeros(1, 3, 64, 64))
        except Exception as cause:  # noqa: BLE001 - whatever fails in one library, the others are measured
            yield name, cause
        else:
            yield name, model


def num_parameters(model: nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(each.numel() for each in model.parameters())


def inference_ways(
    batch: int, size: int, device: torch.device, tolerances: dict[str, float], asked: Sequence[str]
) -> Iterator[Way | str]:
    """Yield each way to run the model (library, runtime, precision), smp itself first.

    If a way is left out, yield a sentence with the reason instead.
    """
    theirs = smp_unet().eval()
    ours = zoo.from_smp(theirs).eval().to(device)
    theirs = theirs.to(device)
    image = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)

    def run(model: nn.Module, image: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(image)

    expected = reference_of(theirs, image, 0.0).output

    def way(name: str, call: nn.Module, image: Tensor = image, *, is_same: bool = True) -> Way:
        step = partial(run, call, image)
        return Way(name, step, relative_error(step(), expected) if is_same else None, num_parameters(call))

    yield way("smp", theirs)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    yield way("smp, channels-last", last, image.to(memory_format=torch.channels_last))
    if has_bfloat16(device):
        yield way("smp, channels-last, bfloat16", Mixed(last), image.to(memory_format=torch.channels_last))
    else:
        yield "bfloat16 is left out: the processor emulates it with float32"
    runtimes = [name for name in asked if suits(name, device)]
    precisions = ("float32", "bfloat16") if has_bfloat16(device) else ("float32",)
    for precision in precisions:  # some runtimes fold norms themselves; for the others, a pass folds them
        for runtime in runtimes:
            given = (theirs, image, runtime, precision, tolerances[precision], ["fold-norms"])
            yield from deployed_ways(f"smp, {runtime}", way, *given)
    yield way("zoo", ours)
    for precision in precisions:
        for runtime in ("eager", *runtimes):
            given = (ours, image, runtime, precision, tolerances[precision], None)
            yield from deployed_ways(f"zoo.deploy, {runtime}", way, *given)
    for name, model in others():
        left_out = f"{name} is left out: {model!r}"
        yield left_out if isinstance(model, Exception) else way(name, model.to(device), is_same=False)


class Mixed(nn.Module):
    """A model that runs in autocast to bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return the model's logits."""
        with torch.autocast(image.device.type, torch.bfloat16):
            return self.model(image)


def deployed_ways(
    name: str,
    way: Callable[..., Way],
    model: nn.Module,
    image: Tensor,
    runtime: str,
    precision: str,
    tolerance: float,
    passes: Sequence[str] | None,
) -> Iterator[Way | str]:
    """Yield the way to run the model that `zoo.deploy` makes for this runtime and precision.

    If `zoo.deploy` chooses another runtime or precision, yield a sentence with the reason instead.
    """
    deployed = zoo.deploy(model, example=image, tolerance=tolerance, runtime=runtime, passes=passes)
    chosen = deployed.report.chosen
    if (chosen.runtime, chosen.precision) == (runtime, precision):
        yield way(f"{name}, {precision}", deployed)
        return
    tried = next(each for each in deployed.report.candidates if (each.runtime, each.precision) == (runtime, precision))
    if tried.refused:
        yield f"{name}, {precision}: {tried.refused}"
    else:
        better = "the model itself" if chosen.runtime == ORIGINAL else chosen.precision
        yield f"{name}, {precision}: {tried.speed.format(digits=2)} times as fast as the model itself; {better} is faster"


def training_ways(batch: int, size: int, device: torch.device) -> Iterator[Way | str]:
    """Yield each way to train the model, smp itself first. If a way is left out, yield a sentence with the reason instead."""
    theirs = smp_unet().train()
    ours = zoo.from_smp(theirs)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, size, size, generator=generator)
    target = torch.randint(0, 2, (batch, 1, size, size), generator=generator).float()
    expected: list[float] = []

    def step_of(
        model: nn.Module, *, is_last: bool = False, compiled: bool = False, dtype: torch.dtype = torch.float32
    ) -> Callable[[], float]:
        model = copy.deepcopy(model).train().to(device)
        seen, wanted = image.to(device, dtype), target.to(device, dtype)
        if is_last:
            model, seen = model.to(memory_format=torch.channels_last), seen.to(memory_format=torch.channels_last)
        model = model.to(dtype)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        call = torch.compile(model, dynamic=False) if compiled else model

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = F.binary_cross_entropy_with_logits(call(seen), wanted)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def way(name: str, model: nn.Module, *, is_same: bool = True, **how: bool) -> Way:
        step = step_of(model, **how)
        losses = [step() for _ in range(LOSSES)]
        expected.extend(losses if not expected else ())
        return Way(name, step, largest_difference(losses, expected) if is_same else None, num_parameters(model))

    yield way("smp", theirs)
    yield way("smp, channels-last", theirs, is_last=True)
    yield way("smp, compile", theirs, is_last=True, compiled=True)
    yield way("zoo", ours)
    yield way("zoo, channels-last", ours, is_last=True)
    yield way("zoo, compile", ours, is_last=True, compiled=True)
    if has_bfloat16(device):
        for name, model in (("smp", Mixed(theirs)), ("zoo", Mixed(ours))):
            yield way(f"{name}, channels-last, bfloat16", model, is_last=True)
            yield way(f"{name}, compile, bfloat16", model, is_last=True, compiled=True)
    for name, model in others():
        yield f"{name} is left out: {model!r}" if isinstance(model, Exception) else way(name, model, is_same=False)
    if device.type != "cpu":
        return
    doubles = [step_of(model, dtype=torch.float64) for model in (theirs, ours)]
    runs = [[step() for _ in range(LOSSES)] for step in doubles]
    yield f"In float64 the {LOSSES} losses of smp and zoo differ by {largest_difference(*runs):.0e} at most."


def largest_difference(losses: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest difference between the losses of two runs."""
    return max(abs(one - other) for one, other in zip(losses, expected, strict=True))


def table(ways: Sequence[Way], seconds: Sequence[Sequence[float]], error: str) -> list[str]:
    """Return the table of one block as Markdown."""
    lines = [f"| way | ms | times as fast as smp | {error} | parameters |", "| --- | ---: | ---: | ---: | ---: |"]
    for way, each in zip(ways, seconds, strict=True):
        told = "1" if way is ways[0] else estimate_ratio(seconds[0], each).format(digits=2)
        away = "" if way.error is None else f"{way.error:.0e}"
        lines.append(f"| {way.name} | {1e3 * sorted(each)[len(each) // 2]:.3g} | {told} | {away} | {way.num_parameters:,} |")
    return lines


def main() -> None:
    """Print a table for each block, and write all tables to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--coarse", type=float, default=1e-2, help="the tolerance of rows in bfloat16")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument(
        "--runtimes", nargs="*", choices=RUNTIMES[1:], default=RUNTIMES[1:], help="runtimes besides eager, for inference"
    )
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the exporter and the compiler
    device = choose_device(asked.device)
    place = describe_environment(device)
    where = f"{place.processor}, {place.threads} threads" if device.type == "cpu" else place.device_name
    is_cuda = device.type == "cuda"
    lines = [
        f"**{where}, torch {torch.__version__}, smp {smp.__version__}, {asked.rounds} rounds.** In inference, zoo.deploy "
        f"refuses a model whose logits differ from the original's by more than {asked.tolerance:g} (float32) or "
        f"{asked.coarse:g} (bfloat16) of the largest logit."
        + " In TF32, the limit is three times the original's own difference from float32, if that is larger."
        * is_cuda
    ]
    tolerances = {"float32": asked.tolerance, "bfloat16": asked.coarse}
    for mode in asked.modes:
        for size in asked.sizes:
            for batch in asked.batches:
                is_inference = mode == "inference"
                if is_inference:
                    found = list(inference_ways(batch, size, device, tolerances, asked.runtimes))
                else:
                    found = list(training_ways(batch, size, device))
                ways = [each for each in found if isinstance(each, Way)]
                left_out = [each for each in found if isinstance(each, str)]
                seconds = seconds_by_turns([way.step for way in ways], asked.rounds, device)
                heading = "error" if is_inference else f"largest difference of {LOSSES} losses"
                block = ["", f"{mode}, batch {batch}, {size}x{size}", "", *table(ways, seconds, heading)]
                block += [line for why in left_out for line in ("", why)]
                print("\n".join(block), flush=True)
                lines += block
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
