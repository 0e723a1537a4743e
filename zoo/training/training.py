"""`zoo.train`: from ids, data and settings to a fitted model's folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.common.configuration import checked
from zoo.data.data_config import locate_data
from zoo.data.segmentation_data import SegmentationData
from zoo.data.sources import open_data
from zoo.pairing.pairing import Pairing
from zoo.registry.plugin_files import load_plugin_file
from zoo.training.fit import check_installed, fit
from zoo.training.result import TrainResult
from zoo.training.run_folder import known_files
from zoo.training.settings import TrainSettings

__all__ = ["train"]


def train(
    encoder: str,
    decoder: str,
    data: SegmentationData | str | PathLike[str],
    *,
    output: str | PathLike[str],
    weights: str | None = None,
    levels: int | None = None,
    aux_levels: int = 0,
    gradient_checkpointing: str | None = None,
    encoder_options: dict[str, Any] | None = None,
    decoder_options: dict[str, Any] | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    show_progress: bool = False,
    **settings: Any,
) -> TrainResult:
    """Train an encoder and a decoder on images with masks, test them, and keep the result in a folder.

    The same call goes on where it was interrupted, and returns the result at once where it was finished. Data, a file of
    weights and plugins are the same if their content is.

    Args:
        encoder: an encoder's id.
        decoder: a decoder's id.
        data: what `zoo.open_data` takes, or what it or you have made: a `SegmentationData`.
        output: the folder; `zoo.load` reads its `best.ckpt` or `last.ckpt`.
        weights: of the encoder, as `zoo.build` takes them.
        levels: how many maps the decoder gets, as `zoo.build` takes it.
        aux_levels: heads on the decoder's coarser maps for deep supervision, as `zoo.build` takes it.
        gradient_checkpointing: "encoder", "decoder" or "both", as `zoo.build` takes it.
        encoder_options: keywords for the encoder's factory.
        decoder_options: keywords for the decoder's factory.
        plugins: Python files that register encoders or decoders; they are run.
        show_progress: whether a bar is drawn.
        settings: as `TrainSettings` names them: epochs, steps, batch, size, loss, learning_rate, freeze_encoder, seed, ...

    Raises:
        ZooError: an unknown id, data that cannot be trained on, a wrong setting, or a folder that holds a run of other
            settings or on other data.
    """
    asked = checked(TrainSettings, settings, "These are no settings of zoo.train")
    for plugin in plugins:
        load_plugin_file(Path(plugin))
    if not isinstance(data, SegmentationData):
        check_installed(locate_data(str(data), Path()))
    opened = open_data(data, earlier_scans=known_files(Path(output)))
    for note in opened.notes:
        logging.getLogger(__name__).warning("%s: %s.", opened.name, note)
    pairing = Pairing(
        encoder,
        decoder,
        classes=len(opened.classes),
        in_channels=opened.in_channels,
        weights=weights,
        levels=levels,
        aux_levels=aux_levels,
        gradient_checkpointing=gradient_checkpointing,
        encoder_options=encoder_options or {},
        decoder_options=decoder_options or {},
    )
    files = [Path(plugin) for plugin in plugins]
    return fit(pairing, opened, asked, Path(output), plugins=files, show_progress=show_progress)
