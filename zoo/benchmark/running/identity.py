"""The identity of a run: its configuration, and digests of all files that the configuration refers to.

An interrupted run is resumed only if its identity is still the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.trial import Reference, Subject, Trial
from zoo.common.regular_files import expand_user, files_at, is_regular, sha256_of
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.data.segmentation_data import SegmentationData

__all__ = ["data_digest", "run_identity"]


def run_identity(config: BenchConfig, trials: Sequence[Trial], data: SegmentationData | None) -> dict[str, object]:
    """Return the configuration as a dictionary, with digests of the plugin files, the models' files and the training data.

    Raises:
        ConfigError: a plugin file or a file of a model cannot be read.
    """
    weights = {path for subject in {trial.subject for trial in trials} for path in _model_files(subject)}
    try:
        plugins = {path: sha256_of(Path(path)) for path in config.plugins}
        digests: dict[str, object] = {"weights": {str(path): sha256_of(path) for path in sorted(weights)}} if weights else {}
    except OSError as cause:
        raise ConfigError(f"{cause.filename} cannot be read: {cause.strerror}. Use a file that can be read.") from cause
    if data:
        digests["data_digest"] = data_digest(data)
    return {**config.model_dump(mode="json"), "plugins": plugins, **digests}


def data_digest(data: SegmentationData) -> str:
    """Return the digest of the data's content."""
    assert data.fingerprint is not None  # `open_quality_data` computes it if the data have none
    return data.fingerprint.digest


def _model_files(subject: Subject) -> list[Path]:
    """Return the files that a model is built from: its weights, and each existing file whose path is the value of an option."""
    if isinstance(subject, Reference):
        weights, options = [], [subject.options]
    else:
        weights = files_at(subject.weights) if subject.weights else []
        options = [subject.encoder_options, subject.decoder_options]
    texts = (value for each in options for value in each.values() if isinstance(value, str))
    return [*weights, *(path for path in map(expand_user, texts) if is_regular(path))]
