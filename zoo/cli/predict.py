"""The command that puts a model to use: predict."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.answers import answer, note
from zoo.cli.application import app, fail
from zoo.cli.console import PluginOption, load_plugins
from zoo.common.choices import Existing, Flips, Precision

if TYPE_CHECKING:
    from zoo.inference.prediction.files import PredictedFiles
    from zoo.inference.prediction.output_paths import ImagePaths
    from zoo.inference.prediction.predictor import Predictor

__all__: list[str] = []

MOST_TOLD = 20


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="A folder that zoo.save wrote, a checkpoint of zoo train, or hf-hub:OWNER/NAME.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images, and folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder that gets the masks.")],
    tile: Annotated[
        str, typer.Option(help="The side of a tile in pixels, 'auto' (tiles for more than 2048x2048), or 'none'.")
    ] = "auto",
    overlap: Annotated[int | None, typer.Option(help="Of tiles, in pixels.", show_default="a fourth of a tile")] = None,
    batch: Annotated[int, typer.Option(help="Tiles, or images of one size, at a time.")] = 1,
    flips: Annotated[Flips, typer.Option(help="Average over mirror images as well.")] = "none",
    precision: Annotated[Precision, typer.Option(help="What is computed in.")] = "float32",
    device: Annotated[str, typer.Option(help="'auto' is the accelerator, if there is one; or cpu, cuda:1, ...")] = "auto",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write NAME-probabilities.npy as well.")] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write NAME-overlay.jpg as well: the mask over the image.")
    ] = False,
    existing: Annotated[Existing, typer.Option(help="What of masks that are there already.")] = "error",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Read images of more than 89 million pixels; for files you trust.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Predict images and write a mask for each: a PNG with a palette, whose pixels are class indexes.

    A GeoTIFF's mask is a GeoTIFF in its place. A broken image is told at the end, and the others are done: exit status 2.
    """
    from zoo.inference.prediction.output_paths import plan_outputs
    from zoo.inference.prediction.predictor import Predictor

    load_plugins(plugin)
    wanted = {"probabilities": probabilities, "overlay": overlay}
    all_paths, num_skipped = plan_outputs(images, output, existing=existing, **wanted)  # told before a model is loaded
    predictor = Predictor(
        model,
        device=device,
        tile=_tile(tile),
        overlap=overlap,
        batch=batch,
        flips=flips,
        precision=precision,
    )
    try:
        found = _with_progress(predictor, all_paths, output, any_size=any_size, **wanted)
        _show(found, num_skipped, output)
    except KeyboardInterrupt:
        fail(f"Interrupted. What is in {output} is whole; the same command with --existing skip goes on.", 130)


def _with_progress(predictor: Predictor, all_paths: list[ImagePaths], output: Path, **options: Any) -> PredictedFiles:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.common.rendering import PrintableConsole
    from zoo.inference.prediction.files import predict_planned

    count = len(all_paths)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeRemainingColumn(),
    )
    done = 0

    with Progress(*columns, console=PrintableConsole(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("predicting", total=count, told="")

        def progress(path: Path, share: float) -> None:
            nonlocal done
            done += share >= 1
            bar.update(task, completed=done if share >= 1 else done + share, told=f"{done} of {count}, {path.name}")

        return predict_planned(predictor, all_paths, output, progress=progress, **options)


def _show(found: PredictedFiles, num_skipped: int, output: Path) -> None:
    skipped = f", {num_skipped} left out, done already" if num_skipped else ""
    count = len(found.masks)
    answer(f"{count} {'mask' if count == 1 else 'masks'} in {output}{skipped}.")
    for told in found.notes:
        note(f"Note: {told}")
    if found.failed:
        more = len(found.failed) - MOST_TOLD
        lines = [*list(found.failed.values())[:MOST_TOLD], *([f"... and {more} more"] if more > 0 else [])]
        told = "1 image" if len(found.failed) == 1 else f"{len(found.failed)} images"
        fail("\n".join([f"{told} could not be predicted:", *(f"  {line}" for line in lines)]), 2)


def _tile(text: str) -> Any:
    from zoo.errors import OptionError

    if text == "auto":
        return "auto"
    if text == "none":
        return None
    if re.fullmatch("[0-9]{1,9}", text) is None:
        raise OptionError(f"--tile {text}: a side in pixels, 'auto' or 'none'.")
    return int(text)
