"""This project's U-Net against others', the same weights where they can be carried over: `python benchmarks/peers.py`.

All ways of one block (mode, batch, size) are run in the same rounds, in an order that changes, so that what slows the machine
hits all alike. A ratio is `smp.Unet`'s time over the row's, above 1 where the row is faster, with its 95 % interval. Outputs of
models that have smp's weights are compared before anything is timed; a training step is forward, loss, backward, AdamW,
and its losses over ten steps are compared. Other people's U-Nets run where they are installed (the extra `peers`), with weights
of their own. They are as near to smp's as their options go, which the parameters tell: torchseg's is the same network, MONAI's
has shortcuts without weights in its encoder, and fastai's decoder has six times the parameters.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import seconds_by_turns

import zoo
from zoo.benchmark.environment import describe_environment
from zoo.deployment.choice import ORIGINAL, relative_error
from zoo.statistics import estimate_ratio

WIDTHS = (256, 128, 64, 32, 16)
LOSSES = 10


@dataclass(frozen=True)
class Way:
    """One way to run a U-Net on a ResNet18: its name, one call, how far its result is from smp's, and its parameters."""

    name: str
    step: Callable[[], object]
    error: float | None
    num_parameters: int


def smp_unet() -> nn.Module:
    """Return smp's U-Net with norms that have seen something."""
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, decoder_channels=WIDTHS)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model


def monai_unet() -> nn.Module:
    """Return MONAI's U-Net, without its narrowing before each upsampling and its padding, which smp's has not."""
    from monai.networks.nets import FlexibleUNet

    return FlexibleUNet(3, 1, "resnet18", decoder_channels=WIDTHS, pre_conv=None, is_pad=False)


def torchseg_unet() -> nn.Module:
    """Return torchseg's U-Net."""
    import torchseg

    return torchseg.Unet("resnet18", encoder_weights=None, decoder_channels=WIDTHS)


def fastai_unet() -> nn.Module:
    """Return fastai's U-Net, whose widths follow from the encoder's."""
    from fastai.vision.learner import create_unet_model
    from torchvision.models import resnet18

    return create_unet_model(resnet18, 1, (256, 256), pretrained=False)


def others() -> Iterator[tuple[str, nn.Module | Exception]]:
    """Yield other libraries' U-Nets on a ResNet18, of those that are installed, or why one cannot be measured."""
    peers = (("monai", "FlexibleUNet", monai_unet), ("torchseg", "Unet", torchseg_unet), ("fastai", "DynamicUnet", fastai_unet))
    for package, name, build in peers:
        if find_spec(package) is None:
            continue
        try:
            name = f"{package} {version(package)} {name}"
            model = build().eval()
            with torch.no_grad():
                model(torch.zeros(1, 3, 64, 64))
        except Exception as cause:  # noqa: BLE001 - whatever another library raises, the rest is measured
            yield name, cause
        else:
            yield name, model


def num_parameters(model: nn.Module) -> int:
    """Return how many numbers a model learns."""
    return sum(each.numel() for each in model.parameters())


def inference_ways(batch: int, size: int, tolerance: float) -> Iterator[Way | str]:
    """Yield the ways to predict, smp's own first, and why one is left out."""
    theirs = smp_unet().eval()
    ours = zoo.from_smp(theirs).eval()
    image = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    last = torch.channels_last
    with torch.inference_mode():
        expected = theirs(image)

    def way(name: str, call: nn.Module, image: Tensor = image, *, is_same: bool = True) -> Way:
        def step() -> Tensor:
            with torch.inference_mode():
                return call(image)

        found = step()
        return Way(name, step, relative_error(found, expected) if is_same else None, num_parameters(call))

    yield way("smp", theirs)
    yield way("smp, channels-last", copy.deepcopy(theirs).to(memory_format=last), image.to(memory_format=last))
    for runtime in ("compile", "onnxruntime", "openvino"):  # these fold norms by themselves, or are given them folded
        yield from deployed_ways(f"smp, {runtime}", way, theirs, image, runtime, tolerance, ["fold-norms"])
    yield way("zoo", ours)
    for runtime in ("eager", "compile", "onnxruntime", "openvino"):
        yield from deployed_ways(f"zoo.deploy, {runtime}", way, ours, image, runtime, tolerance, None)
    for name, model in others():
        yield f"{name} is left out: {model!r}" if isinstance(model, Exception) else way(name, model, is_same=False)


def deployed_ways(
    name: str,
    way: Callable[..., Way],
    model: nn.Module,
    image: Tensor,
    runtime: str,
    tolerance: float,
    passes: Sequence[str] | None,
) -> Iterator[Way | str]:
    """Yield the fastest that a runtime gives within the tolerance, or say why there is none."""
    deployed = zoo.deploy(model, example=image, tolerance=tolerance, runtime=runtime, passes=passes)
    usable = [each for each in deployed.report.candidates if each.runtime == runtime and each.refused is None]
    if not usable:
        yield f"{name}: {'; '.join(str(each.refused) for each in deployed.report.candidates if each.refused)}"
    elif deployed.report.chosen.runtime == ORIGINAL:
        yield f"{name}: {usable[0].speed.told(digits=2)} times as fast as the model itself, and so not chosen"
    else:
        yield way(f"{name}, {deployed.report.chosen.precision}", deployed)


def training_ways(batch: int, size: int) -> Iterator[Way | str]:
    """Yield the ways to train, smp's own first, and why one is left out."""
    theirs = smp_unet().train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, size, size, generator=generator)
    target = torch.randint(0, 2, (batch, 1, size, size), generator=generator).float()
    expected: list[float] = []

    def way(name: str, model: nn.Module, *, is_last: bool = False, compiled: bool = False, is_same: bool = True) -> Way:
        model = copy.deepcopy(model).train()
        seen = image
        if is_last:
            model, seen = model.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        call = torch.compile(model, dynamic=False) if compiled else model

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = F.binary_cross_entropy_with_logits(call(seen), target)
            loss.backward()
            optimizer.step()
            return loss.item()

        losses = [step() for _ in range(LOSSES)]
        expected.extend(losses if not expected else ())
        error = max(abs(one - other) for one, other in zip(losses, expected, strict=True)) if is_same else None
        return Way(name, step, error, num_parameters(model))

    ours = zoo.from_smp(theirs)
    yield way("smp", theirs)
    yield way("smp, channels-last", theirs, is_last=True)
    yield way("smp, compile", theirs, is_last=True, compiled=True)
    yield way("zoo", ours)
    yield way("zoo, channels-last", ours, is_last=True)
    yield way("zoo, compile", ours, is_last=True, compiled=True)
    for name, model in others():
        yield f"{name} is left out: {model!r}" if isinstance(model, Exception) else way(name, model, is_same=False)


def table(ways: Sequence[Way], seconds: Sequence[Sequence[float]], error: str) -> list[str]:
    """Return the block's table as Markdown."""
    lines = [f"| way | ms | times as fast as smp | {error} | parameters |", "| --- | ---: | ---: | ---: | ---: |"]
    for way, each in zip(ways, seconds, strict=True):
        told = "1" if way is ways[0] else estimate_ratio(seconds[0], each).told(digits=2)
        away = "" if way.error is None else f"{way.error:.0e}"
        lines.append(f"| {way.name} | {1e3 * sorted(each)[len(each) // 2]:.1f} | {told} | {away} | {way.num_parameters:,} |")
    return lines


def main() -> None:
    """Print a table for each block, and write them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the exporter's and the compiler's own
    place = describe_environment(torch.device("cpu"))
    lines = [
        f"**{place.processor}, {place.threads} threads, torch {torch.__version__}, smp {smp.__version__}, "
        f"{asked.rounds} rounds, tolerance {asked.tolerance:g}**"
    ]
    for mode in asked.modes:
        for size in asked.sizes:
            for batch in asked.batches:
                is_inference = mode == "inference"
                found = list(inference_ways(batch, size, asked.tolerance) if is_inference else training_ways(batch, size))
                ways = [each for each in found if isinstance(each, Way)]
                left_out = [each for each in found if isinstance(each, str)]
                seconds = seconds_by_turns([way.step for way in ways], asked.rounds)
                heading = "error" if is_inference else f"largest difference of {LOSSES} losses"
                block = ["", f"{mode}, batch {batch}, {size}x{size}", "", *table(ways, seconds, heading)]
                block += [line for why in left_out for line in ("", why)]
                print("\n".join(block), flush=True)
                lines += block
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
