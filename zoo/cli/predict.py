"""The command `zoo predict`: predict masks of images, and write them to files."""

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

MAX_FAILURES = 20
"""The largest number of failed images that the error message names."""


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="A folder that zoo.save wrote, a checkpoint of zoo train, or hf-hub:OWNER/NAME.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images, and folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the masks.")],
    tile: Annotated[
        str,
        typer.Option(
            help="The side of a tile in pixels. 'auto' uses tiles only for images of more than 2048x2048 pixels. 'none' uses "
            "no tiles."
        ),
    ] = "auto",
    overlap: Annotated[
        int | None, typer.Option(help="The overlap of neighboring tiles, in pixels.", show_default="a fourth of a tile")
    ] = None,
    batch: Annotated[
        int, typer.Option(help="The batch size: how many tiles, or images of the same size, the model receives at once.")
    ] = 1,
    flips: Annotated[Flips, typer.Option(help="Average over the image and its mirror images.")] = "none",
    precision: Annotated[Precision, typer.Option(help="The data type for the computation.")] = "float32",
    device: Annotated[
        str, typer.Option(help="The device: cpu, cuda:1, ...; 'auto' is the accelerator if there is one.")
    ] = "auto",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write NAME-probabilities.npy.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write NAME-overlay.jpg, the mask over the image.")] = False,
    existing: Annotated[
        Existing, typer.Option(help="What to do with an image if one of its output files already exists.")
    ] = "error",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Also read images of more than 89 million pixels, if you trust the files.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Predict a mask for each image, and write it as a PNG with a palette. Its pixels are class indexes.

    The mask of a GeoTIFF is a GeoTIFF with the same georeference. An image that fails does not stop the command: the failed
    images are reported at the end, and the exit status is 2.
    """
    from zoo.inference.prediction.output_paths import plan_outputs
    from zoo.inference.prediction.predictor import Predictor

    load_plugins(plugin)
    extras = {"probabilities": probabilities, "overlay": overlay}
    all_paths, num_skipped = plan_outputs(
        images, output, existing=existing, **extras
    )  # finds mistakes before a model is loaded
    predictor = Predictor(
        model,
        device=device,
        tile=_parse_tile(tile),
        overlap=overlap,
        batch=batch,
        flips=flips,
        precision=precision,
    )
    try:
        result = _predict_with_progress(predictor, all_paths, output, any_size=any_size, **extras)
        _show_result(result, num_skipped, output)
    except KeyboardInterrupt:
        fail(f"Interrupted. The files in {output} are complete; the same command with --existing skip continues.", 130)


def _predict_with_progress(predictor: Predictor, all_paths: list[ImagePaths], output: Path, **options: Any) -> PredictedFiles:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.common.rendering import PrintableConsole
    from zoo.inference.prediction.files import predict_planned

    count = len(all_paths)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeRemainingColumn(),
    )
    done = 0

    with Progress(*columns, console=PrintableConsole(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("predicting", total=count, status="")

        def progress(path: Path, share: float) -> None:
            nonlocal done
            done += share >= 1
            bar.update(task, completed=done if share >= 1 else done + share, status=f"{done} of {count}, {path.name}")

        return predict_planned(predictor, all_paths, output, progress=progress, **options)


def _show_result(result: PredictedFiles, num_skipped: int, output: Path) -> None:
    skipped = f", {num_skipped} skipped, done already" if num_skipped else ""
    answer(f"{_count(len(result.masks), 'mask')} in {output}{skipped}.")
    for line in result.notes:
        note(f"Note: {line}")
    if result.failed:
        reasons = list(result.failed.values())
        more = [f"... and {len(reasons) - MAX_FAILURES} more"] if len(reasons) > MAX_FAILURES else []
        lines = (f"  {line}" for line in (*reasons[:MAX_FAILURES], *more))
        fail("\n".join([f"The masks of {_count(len(reasons), 'image')} could not be predicted:", *lines]), 2)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parse_tile(text: str) -> Any:
    from zoo.errors import OptionError

    if text == "auto":
        return "auto"
    if text == "none":
        return None
    if re.fullmatch("[0-9]{1,9}", text) is None:
        raise OptionError(f"--tile {text}: give a side length in pixels, 'auto' or 'none'.")
    return int(text)
