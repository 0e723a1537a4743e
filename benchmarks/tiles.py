"""Compare `zoo.Predictor` with MONAI's sliding window on a large image in tiles: `python benchmarks/tiles.py`.

Both use the same model, tiles, overlap and batch, and convert an array of bytes to an array of class indexes. All rows run in
the same rounds, in random order. A ratio is the time of the first row divided by the time of the row that shows it. Above 1,
that row is faster than the first. The 95 % interval of the ratio follows in brackets. The memory of each row is measured in a
separate process, which first predicts a single tile. It is the peak while the whole image is predicted, minus the memory that
the process used before that.

Requires `pip install monai`.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from turns import seconds_by_turns

import zoo
from zoo.benchmark.measuring.memory import peak_allocated_bytes, peak_resident_bytes, reset_peaks
from zoo.benchmark.running.environment import describe_environment
from zoo.common.devices import choose_device
from zoo.common.rendering import table_row
from zoo.common.statistics import estimate_ratio
from zoo.inference.runtimes import autocast, has_bfloat16
from zoo.model.layers.normalization import Normalization

Way = Callable[[np.ndarray], np.ndarray]
MONAI = "monai"


def model_of(asked: argparse.Namespace) -> zoo.SegmentationModel:
    """Return the model. Its weights are the same in each process."""
    torch.manual_seed(0)
    return zoo.build(asked.encoder, asked.decoder, classes=asked.classes).eval()


def image_of(side: int) -> np.ndarray:
    """Return an image of smooth shapes."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / 40
    return np.stack([np.sin(each) * 127 + 127 for each in (rows, columns, rows + columns)], axis=-1).astype(np.uint8)


def monai_way(asked: argparse.Namespace, device: torch.device, precision: str, stitching: torch.device) -> Way:
    """Return a function that predicts with MONAI, as in MONAI's documentation."""
    from monai.inferers import sliding_window_inference

    model = model_of(asked).to(device)
    normalize = Normalization(model.preprocessing).to(stitching)
    overlap = asked.overlap / asked.tile

    def run(image: np.ndarray) -> np.ndarray:
        pixels = normalize(torch.from_numpy(image).to(stitching).permute(2, 0, 1)[None].float() / 255)
        with torch.inference_mode(), autocast(torch.empty(0, device=device), precision):
            logits = sliding_window_inference(
                pixels, asked.tile, asked.batch, model, overlap, mode="gaussian", sw_device=device, device=stitching
            )
        found: np.ndarray = logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
        return found

    return run


def zoo_way(asked: argparse.Namespace, device: torch.device, precision: str, runtime: str | None) -> Way:
    """Return a function that predicts with `zoo.Predictor`."""
    model: zoo.SegmentationModel | zoo.Deployed = model_of(asked).to(device)
    if runtime:
        example = torch.rand(asked.batch, 3, asked.tile, asked.tile, device=device)
        model = zoo.deploy(model, example=example, runtime=runtime)
    predictor = zoo.Predictor(model, tile=asked.tile, overlap=asked.overlap, batch=asked.batch, precision=precision)
    return lambda image: predictor(image).mask


def ways(asked: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Callable[[], Way]]]:
    """Yield each way to predict the image: its name, and a function that returns the function that predicts."""
    yield MONAI, partial(monai_way, asked, device, "float32", device)
    if device.type != "cpu":
        yield f"{MONAI}, stitched on the CPU", partial(monai_way, asked, device, "float32", torch.device("cpu"))
    yield "zoo.Predictor", partial(zoo_way, asked, device, "float32", None)
    yield "zoo.Predictor of zoo.deploy", partial(zoo_way, asked, device, "float32", asked.runtime)
    if has_bfloat16(device):
        yield f"{MONAI}, bfloat16", partial(monai_way, asked, device, "bfloat16", device)
        yield "zoo.Predictor, bfloat16", partial(zoo_way, asked, device, "bfloat16", None)


def measure_memory(asked: argparse.Namespace, name: str, told: Connection) -> None:
    """Predict with the way that has this name (see `ways`), in this process, and send two numbers of bytes.

    The first is the peak memory of the process while it predicts the whole image, minus the memory that it used before, when it
    had already predicted a single tile. The second is the peak of the memory that is allocated on the accelerator, or None on a
    CPU.
    """
    device = choose_device(asked.device)
    run = dict(ways(asked, device))[name]()
    run(image_of(asked.tile))
    image = image_of(asked.side)
    reset_peaks(device)
    before = peak_resident_bytes() or 0
    run(image)
    told.send(((peak_resident_bytes() or 0) - before, peak_allocated_bytes(device)))


def memory_of(asked: argparse.Namespace, name: str) -> tuple[int, int | None]:
    """Run `measure_memory` in a process of its own, and return its result."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=measure_memory, args=(asked, name, there))
    process.start()
    there.close()
    try:
        found: tuple[int, int | None] = here.recv()
    except EOFError:
        raise SystemExit(f"{name}: the process that measured its memory ended without a result.") from None
    process.join()
    return found


def main() -> None:
    """Print the table, and write it to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--decoder", default="unet-basic")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--side", type=int, default=2560)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runtime", default="auto", help="the runtime of zoo.deploy")
    parser.add_argument("--ways", nargs="+", help="the ways to measure (all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    device = choose_device(asked.device)
    place = describe_environment(device)
    where = f"{place.processor}, {place.threads} threads" if device.type == "cpu" else place.device_name
    image = image_of(asked.side)
    expected = zoo.Predictor(model_of(asked).to(device), tile=None)(image).mask
    found = [(name, make()) for name, make in ways(asked, device) if not asked.ways or name in asked.ways]
    seconds = seconds_by_turns([partial(run, image) for _, run in found], asked.rounds, device)
    lines: list[str] = []

    def tell(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    tell(
        f"**{where}, torch {torch.__version__}, MONAI {version('monai')}, {asked.encoder} x {asked.decoder}, {asked.classes} "
        f"classes, {asked.side} x {asked.side} pixels in tiles of {asked.tile}, overlap {asked.overlap}, batch {asked.batch}, "
        f"{asked.rounds} rounds**\n"
    )
    headings = ["way", "s", f"times as fast as {found[0][0]}", "MiB", "MiB of the accelerator", "same class as untiled"]
    tell(table_row(headings))
    tell(table_row(["---", *(["---:"] * (len(headings) - 1))]))
    for (name, run), each in zip(found, seconds, strict=True):
        resident, allocated = memory_of(asked, name)
        ratio = "1" if each is seconds[0] else estimate_ratio(seconds[0], each).format(digits=2)
        memory = [f"{resident / 2**20:.0f}", "" if allocated is None else f"{allocated / 2**20:.0f}"]
        tell(table_row([name, f"{np.median(each):.3g}", ratio, *memory, f"{np.mean(run(image) == expected):.2%}"]))
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
