"""Train a pairing on images with masks, or resume its training; then test it."""

from __future__ import annotations

import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.checkpoints.loading import load
from zoo.checkpoints.saved_model import ModelFacts
from zoo.common.devices import choose_device, is_out_of_memory
from zoo.common.foreign_code import ForeignError, no_exits
from zoo.common.format_names import format_count, format_names
from zoo.common.import_path import code_digest
from zoo.common.regular_files import files_at, sha256_of
from zoo.data.checked_samples import check_on_read, measure_samples, notes_on_samples
from zoo.data.fingerprint import Fingerprint, fingerprint_of_samples, random_parts
from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.optional_packages import install_commands
from zoo.errors import ConfigError, DataError, OptionError, PluginError
from zoo.model.building import build_pairing
from zoo.pairing.pairing import Pairing
from zoo.pairing.resolve import resolve
from zoo.training.initial_weights import digest_of_weights, start_from
from zoo.training.loop.channels_last import takes_channels_last
from zoo.training.loop.sampling import seed_of
from zoo.training.losses import choose_class_weights, make_loss
from zoo.training.result import TrainResult, read_result, write_result
from zoo.training.run_folder import claim_folder, run_id
from zoo.training.settings import TrainSettings

__all__ = ["check_installed", "crop_size", "fit"]

LIBRARIES = ("lightning", "torchmetrics")
"""The optional modules that training requires."""


@no_exits("Training")
def fit(
    pairing: Pairing | nn.Module,
    data: SegmentationData,
    settings: TrainSettings,
    output: Path,
    *,
    plugins: Sequence[Path] = (),
    show_progress: bool = False,
    tell: Callable[[str], None] | None = None,
    stop_after: int | None = None,
) -> TrainResult:
    """Train a pairing, test it, and write checkpoints, logs and the result to a folder.

    If the folder contains an interrupted run of the same pairing, data and settings, training resumes from that run's last
    checkpoint. On the CPU, the resulting weights are bit for bit the same as without the interruption. Data, weights files and
    plugin files count as the same if their content is the same, even in another folder.

    Args:
        pairing: a pairing with as many classes and channels as the data, or any module that maps (N, channels, H, W) to
            (N, classes, H, W).
        data: images with masks.
        settings: how to train.
        output: the folder for `last.ckpt` and `best.ckpt` (which `zoo.load` accepts), `log/`, `result.json`, and `data.json`
            (the fingerprint of the data).
        plugins: the Python files that registered the encoder or the decoder, if any.
        show_progress: whether to draw a progress bar.
        tell: called before each batch with a line about the batch. If it raises an exception, the run ends and can be resumed.
        stop_after: the step after which training stops for now; None to train to the end. The model is then validated and
            tested as it is. A later call with more steps goes on from there, to the same weights as without the stop. Requires
            `settings.validations` to be 0.

    Raises:
        OptionError: Lightning is not installed, the folder cannot be written, or a setting does not fit the model (for example,
            `freeze_encoder` does not fit a module without an encoder).
        ConfigError: the folder contains a run with other settings or other data, the pairing's number of classes or channels
            is not that of the data, or the device does not exist.
        DataError: the images differ in size and the settings have no `size`; a sample is not valid; every pixel of the
            training, validation or test images is ignored; or mean and std are to be measured but cannot be.
        PluginError: code of the model or of the data raised an error other than a `ZooError`, or tried to end the program.
        ZooError: the process was sent SIGTERM, training diverged, or a checkpoint cannot be written or read. Checkpoints
            that were already written are kept.
        KeyboardInterrupt: the user interrupted the training; the last checkpoint is kept.
    """
    check_installed()
    # Lightning takes seconds to import
    from zoo.training.loop.lightning_run import Parts, run
    from zoo.training.loop.trainer_parts import make_callbacks, make_loggers, make_trainer, notes_on_resuming

    # Check everything before the folder is created, cheap checks first.
    log = logging.getLogger(__name__)
    size = crop_size(data, settings)
    start = None
    if isinstance(pairing, Pairing):
        _check_fits(pairing, data)
        resolve(pairing)
        if settings.init_from is not None:
            if pairing.weights is not None:
                raise OptionError(
                    f"weights={pairing.weights!r} and init_from={settings.init_from!r} are both set. Set only one of them."
                )
            start = load(settings.init_from)
    elif settings.freeze_encoder and not isinstance(getattr(pairing, "encoder", None), nn.Module):
        raise OptionError(f"freeze_encoder: {type(pairing).__name__} has no attribute 'encoder' that is a module.")
    elif settings.init_from is not None:
        raise OptionError(
            f"init_from requires a zoo.Pairing, but the model is a {type(pairing).__name__}. Load the weights into the model "
            "before the training."
        )
    choose_device(settings.device)
    _check_devices(settings.devices, data)
    with _silence_lightning():
        callbacks, loggers = make_callbacks(settings.callbacks), make_loggers(settings.loggers, output)
        # report wrong keywords and callbacks that do not go together before a folder is created
        make_trainer(settings, logger=False, callbacks=callbacks.copy())  # a trainer adds its own callbacks to the list
    for note in notes_on_resuming(settings.callbacks, callbacks):
        log.warning("callbacks: %s.", note)
    if isinstance(settings.class_weights, list) and len(settings.class_weights) != len(data.classes):
        raise ConfigError(
            f"class_weights has {format_count(len(settings.class_weights), 'number')}, but {data.name} has {len(data.classes)} "
            f"classes ({format_names(data.classes)}). Set one number for each class."
        )
    make_loss(settings.loss_terms, ignored=data.ignored)
    kinds = {name: type(samples).__qualname__ for name, samples in data.parts()}
    data = check_on_read(data)
    facts: dict[str, Any] = {
        "pairing": pairing.as_dict() if isinstance(pairing, Pairing) else None,
        "data": data.name,
        "classes": list(data.classes),
        "colors": [list(color) for color in data.colors],
        "ignored": data.ignored,
    }
    fingerprint = data.fingerprint or fingerprint_of_samples(data.parts(), kinds)
    if data.fingerprint is None:
        for note in (*notes_on_samples(data), *_notes_on_random_parts(fingerprint)):
            log.warning("%s: %s.", data.name, note)
    if data.mean == "auto":
        if "train" in random_parts(fingerprint):
            raise DataError(
                f'{data.name}: mean and std are "auto", but the samples of the train split differ each time they are read. A '
                "resumed run would measure other values. Set mean and std to numbers, on the scale of the samples' values."
            )
        data = measure_samples(data)
    # Of these three options, only those that are set are part of the run's identity.
    facts |= {name: value for name in ("value_range", "mean", "std") if (value := getattr(data, name)) is not None}
    class_weights = choose_class_weights(settings, data, fingerprint)
    loss = make_loss(settings.loss_terms, ignored=data.ignored, class_weights=class_weights)
    identity: dict[str, Any] = {"settings": settings.identity(), "facts": facts}
    if files := _hash_files([*_weights_files(pairing), *plugins, *settings.source_files()]):
        identity["files"] = files
    if code := {path: code_digest(path) for path in settings.own_objects()}:
        identity["code"] = code
    if start is not None:
        identity["init_from"] = digest_of_weights(start)
    claim_folder(output, identity, fingerprint)
    run_hash = run_id(identity, fingerprint)
    if (finished := read_result(output, run_hash)) is not None:
        return finished
    torch.manual_seed(seed_of("weights", settings.seed) % 2**63)
    checkpoint_facts: dict[str, Any] = {"run": run_hash}
    if isinstance(pairing, Pairing):
        built = build_pairing(pairing)
        built.colors = data.colors
        built.value_range = data.value_range
        if start is not None:
            for note in start_from(built, start, str(settings.init_from), data.classes):
                log.warning("init_from: %s.", note)
        built.preprocessing = data.preprocessing or built.preprocessing
        checkpoint_facts["model"] = ModelFacts.of(built, data.classes).model_dump(mode="json")
        model: nn.Module = built
    else:
        model = pairing
    began = time.perf_counter()
    with _silence_lightning(), _explain_failures(settings, size, output):
        parts = Parts(
            model=model,
            loss=loss,
            preprocessing=data.preprocessing or getattr(model, "preprocessing", None),
            callbacks=callbacks,
            loggers=loggers,
            memory_format=_memory_format(model, data, settings, size),
            facts=checkpoint_facts,
        )
        outcome = run(parts, data, settings, output, size=size, show_progress=show_progress, tell=tell, stop_after=stop_after)
    if not outcome.scores.pixels:
        raise DataError(
            f"{data.name}, test split: every pixel is ignored (mask value {data.ignored}), so there is no score. Use test "
            "images with labeled pixels."
        )
    result = TrainResult(
        pairing=str(pairing) if isinstance(pairing, Pairing) else type(pairing).__name__,
        data=data.name,
        classes=data.classes,
        steps=outcome.steps,
        seconds=time.perf_counter() - began,
        waiting=outcome.waiting,
        tested=outcome.tested,
        test=outcome.scores,
        validation=outcome.validation,
        checkpoint=output / f"{outcome.tested}.ckpt",
    )
    if outcome.is_first and (stop_after is None or outcome.steps >= settings.num_steps(len(data.train))):
        write_result(output, result, run_hash)
    return result


def check_installed(source: str = "") -> None:
    """Raise an OptionError that names the missing packages, if any.

    The packages are those that training requires and, if `source` is a task, those that the task's data require.
    """
    if lines := install_commands(source, LIBRARIES):
        on = f" on {source}" if source else ""
        raise OptionError(f"Training{on} requires packages that are not installed. Run: {' && '.join(lines)}")


def _notes_on_random_parts(fingerprint: Fingerprint) -> Iterator[str]:
    for part in random_parts(fingerprint):
        yield (
            f"the samples of the {part} split differ each time they are read, so their content cannot be compared. A resumed "
            "run compares only the class and the length of the split"
        ) + ("" if part == "train" else f". Two scores on the {part} split are measured on different images")


def _check_fits(pairing: Pairing, data: SegmentationData) -> None:
    for name, found, wanted in (
        ("classes", pairing.classes, len(data.classes)),
        ("in_channels", pairing.in_channels, data.in_channels),
    ):
        if found != wanted:
            raise ConfigError(f"{pairing}: {name} is {found}, but {data.name} has {wanted}. Set {name}={wanted}.")


def _check_devices(devices: int, data: SegmentationData) -> None:
    """Raise a ConfigError if there are fewer training, validation or test images than devices."""
    few = [f"{len(samples)} for {part}" for part, samples in data.parts() if 0 < len(samples) < devices]
    if few:
        raise ConfigError(
            f"devices={devices} exceeds the number of images of {data.name}: {', '.join(few)}. Use fewer devices."
        )


def crop_size(data: SegmentationData, settings: TrainSettings) -> tuple[int, int]:
    """Return (H, W) of the training crops.

    Raises:
        DataError: the images differ in size, and the settings have no `size`.
    """
    size = settings.size
    if size is None:
        if data.size is None:
            raise DataError(f"The images of {data.name} differ in size. Set size to the side length of the training crops.")
        return data.size
    return size if isinstance(size, tuple) else (size, size)


def _weights_files(pairing: Pairing | nn.Module) -> list[Path]:
    """Return the files from which the encoder's weights are read; [] if the weights do not come from files."""
    return files_at(pairing.weights) if isinstance(pairing, Pairing) and pairing.weights else []


def _hash_files(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return a mapping from files' names to their digests. The names have no folders, so a moved file counts as the same."""
    digests: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        try:
            digests[path.name].append(sha256_of(path)[:32])
        except OSError as cause:
            raise OptionError(f"{path} cannot be read: {cause.strerror or cause}. Use a file that can be read.") from cause
    return dict(digests)


def _memory_format(
    model: nn.Module, data: SegmentationData, settings: TrainSettings, size: tuple[int, int]
) -> torch.memory_format:
    if settings.memory_format == "auto":
        is_last = takes_channels_last(model, data.in_channels, size)
    else:
        is_last = settings.memory_format == "channels_last"
    return torch.channels_last if is_last else torch.contiguous_format


@contextmanager
def _explain_failures(settings: TrainSettings, size: tuple[int, int], output: Path) -> Iterator[None]:
    """While the context is active, replace an error by one that states a remedy.

    This applies if a sample cannot be read, a file cannot be written, memory runs out, or a callback or logger may have caused
    the error.
    """
    try:
        yield
    except DataError as cause:  # if a loading process raised the error, PyTorch has replaced its text by the whole traceback
        text = str(cause).rpartition(f"{DataError.__module__}.{DataError.__name__}: ")[-1].strip()
        if text == str(cause):
            raise
        raise DataError(text) from cause
    except (ConnectionError, TimeoutError):  # raised by the communication between the processes of several devices
        raise
    except OSError as cause:  # raised while logs or results are written; reading samples raises a DataError
        raise OptionError(
            f"{cause.filename or output} cannot be written: {cause.strerror or cause}. Any checkpoint already written to "
            f"{output} is kept. Free disk space, or move away the file at this path. Then run the same command again to resume."
        ) from cause
    except (TypeError, ValueError, AttributeError, LookupError) as cause:
        objects = [each.class_path for each in (*settings.callbacks, *settings.loggers)]
        if not objects:
            raise
        raise PluginError(
            f"Training failed: {type(cause).__name__}: {cause}. If the model and the data are not the reason, check the "
            f"callbacks and loggers ({format_names(objects)}) and their arguments."
        ) from cause
    except (RuntimeError, MemoryError, ForeignError) as cause:
        if not is_out_of_memory(cause):
            raise
        raise OptionError(
            f"A step with batch={settings.batch} and crops of {size[0]}x{size[1]} does not fit into the memory of "
            f"{choose_device(settings.device)}. Set a smaller batch or size, or set gradient_checkpointing."
        ) from cause


@contextmanager
def _silence_lightning() -> Iterator[None]:
    """While the context is active, suppress the advice and the list of devices that Lightning prints."""
    logger = logging.getLogger("lightning.pytorch")
    utilities = logging.getLogger("lightning.fabric")
    before = [(each, each.level) for each in (logger, utilities)]
    for each, _ in before:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for each, level in before:
            each.setLevel(level)
