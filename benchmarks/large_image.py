"""Predict a 20,000 x 20,000 image in tiles, measure the memory, and look for seams: `python benchmarks/large_image.py`.

The script first trains four pairings briefly on textures. Each of them predicts a 1,024 x 1,024 crop of the image as a whole
and in tiles. The script reports the share of pixels that have the same class in both predictions, and the largest difference
between their probabilities. Pixels near the border of the crop do not count. Then a separate process predicts the 20,000 x
20,000 image with the first pairing, and the script reads the peak memory of that process.

Requires `pip install ".[train,tasks,tiff]"` and 2 GB of disk space. For a quick test, use `--side 4000`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile
import torch

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.common.devices import choose_device
from zoo.common.rendering import table_row

PAIRINGS = (
    ("resnet18", {"levels": 2, "decoder_options": {"channels": (16, 8)}}),
    ("resnet18", {}),
    ("timm:tf_efficientnet_lite0", {}),
    ("timm:vit_tiny_patch16_224", {}),
)
DECODER = "unet-basic"
CROP = 1024
BORDER = 64
"""The number of pixels along each edge of the crop that are not compared."""
TILE, OVERLAP = 512, 128
SETTINGS = {"batch": 8, "size": 128, "learning_rate": 3e-3, "validations": 1, "seed": 0}


def main() -> None:
    """Print the results, and write them to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60, help="training steps")
    parser.add_argument("--device", default="cpu", help="the device that predicts the whole image")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    data = zoo.open_data("texture-mosaic")
    lines: list[str] = []

    def tell(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    device = choose_device(asked.device)
    place = describe_environment(device)
    accelerator = "" if device.type == "cpu" else f" {place.device_name},"
    tell(f"**{place.processor}, {place.threads} threads,{accelerator} torch {torch.__version__}**\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "scene.tif"
        write_scene(scene, data, asked.side)
        models = []
        for index, (encoder, options) in enumerate(PAIRINGS):
            trained = zoo.train(encoder, DECODER, data, output=folder / f"run{index}", steps=asked.steps, **options, **SETTINGS)
            models.append(zoo.load(trained.checkpoint))
        tell(table_row([f"tiles of {TILE}, overlap {OVERLAP}", "same class", "largest difference of a probability"]))
        tell(table_row(["---", "---:", "---:"]))
        crop = np.asarray(tifffile.memmap(scene, mode="r")[:CROP, :CROP])
        for model in models:
            tell(table_row([str(model.pairing), *compared(model, crop)]))
        zoo.save(models[0], folder / "model")
        tell("")
        tell(measured(folder, scene, models[0], asked))
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_scene(path: Path, data: zoo.SegmentationData, side: int) -> None:
    """Write a TIFF that shows the test images side by side. It is written in strips, so it never has to fit into memory."""
    images = [(data.test[index][0] * 255).to(torch.uint8).permute(1, 2, 0).numpy() for index in range(len(data.test))]
    size = images[0].shape[0]
    scene = tifffile.memmap(path, shape=(side, side, images[0].shape[2]), dtype=np.uint8, photometric="rgb")
    for row, top in enumerate(range(0, side, size)):
        strip = np.concatenate([images[(3 * row + column) % len(images)] for column in range(-(-side // size))], axis=1)
        scene[top : top + size] = strip[: min(size, side - top), :side]
    scene.flush()


def compared(model: zoo.SegmentationModel, crop: np.ndarray) -> tuple[str, str]:
    """Compare the prediction of a crop in tiles with the prediction of the crop as a whole.

    Return, as text, the share of pixels that have the same class in both, and the largest difference between probabilities.
    """
    whole, tiled = (
        zoo.Predictor(model, tile=tile, overlap=overlap)(crop, probabilities=True)
        for tile, overlap in ((None, None), (TILE, OVERLAP))
    )
    inner = slice(BORDER, CROP - BORDER)
    assert whole.probabilities is not None
    assert tiled.probabilities is not None
    same = np.mean((whole.mask == tiled.mask)[inner, inner])
    error = np.abs(whole.probabilities - tiled.probabilities)[:, inner, inner].max()
    return f"{same:.3%}", f"{error:.1e}"


def measured(folder: Path, scene: Path, model: zoo.SegmentationModel, asked: argparse.Namespace) -> str:
    """Predict the scene in a new process, and return a sentence with the time and the memory."""
    arguments = (folder / "model", scene, folder / "masks", asked.device)
    process = multiprocessing.get_context("spawn").Process(target=predict, args=arguments)
    begun = time.perf_counter()
    process.start()
    peak = anonymous = 0
    watched = psutil.Process(process.pid)
    while process.is_alive():
        try:
            memory = watched.memory_full_info()
        except psutil.Error:
            break
        peak, anonymous = max(peak, memory.rss), max(anonymous, memory.rss - memory.shared)
        time.sleep(0.2)
    process.join()
    if process.exitcode:
        raise SystemExit(f"The process that predicts the scene ended with exit status {process.exitcode}.")
    seconds = time.perf_counter() - begun
    return (
        f"{asked.side:,} x {asked.side:,} pixels, {scene.stat().st_size / 2**30:.2f} GiB, by {model.pairing}: a mask of "
        f"{(folder / 'masks/scene.png').stat().st_size / 2**20:.0f} MiB as PNG in {seconds:.0f} s on {asked.device}; "
        f"resident memory at most {peak / 2**30:.2f} GiB, pages of the files included, {anonymous / 2**30:.2f} without them."
    )


def predict(model: Path, scene: Path, masks: Path, device: str) -> None:
    """Predict the scene as `zoo predict` does."""
    found = zoo.predict_files(zoo.Predictor(model, device=device), [scene], masks, any_size=True)
    if found.failed:
        raise SystemExit(str(found.failed))


if __name__ == "__main__":
    main()
