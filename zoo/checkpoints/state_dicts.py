"""Read the tensors of a weights file in the safetensors format or the pickle format. Code in a file is never run."""

from __future__ import annotations

import argparse
import pickle
import reprlib
import warnings
from collections.abc import Mapping
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo.checkpoints.hub import CONFIG, FILES, HUB, hub_file
from zoo.common.configuration import read_mapping
from zoo.common.regular_files import check_regular, expand_user, files_at, is_folder
from zoo.errors import ConfigError, WeightsError

__all__ = ["is_bounded", "read_state_dict", "unpickled", "unwrap_state_dict"]

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")
"""Usual names of the entry with the weights that are averaged over the training. As in timm, this entry is preferred."""
LEVELS = 2
"""The largest number of levels by which a state dict may be nested in an entry of a checkpoint."""
DEEPEST, MOST_VALUES = 32, 100_000
"""The largest depth of the data that describe the model in a checkpoint, and the largest number of values in these data."""
USUAL = ("state_dict", "model_state_dict", "model", "net", "network")


def read_state_dict(weights: str | PathLike[str], *, entry: str | None = None, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a file, on the CPU, as a mapping from names to tensors. Other content of a checkpoint is left out.

    In a checkpoint, the weights are the entry `state_dict_ema`, `model_ema` or `ema_state_dict` (averaged over the training).
    If there is none, they are the entry `state_dict`, `model_state_dict`, `model`, `net` or `network`, or else the only entry
    with tensors.

    Args:
        weights: the path of a `.safetensors` file or of a file that `torch.save` wrote; the path of a folder that `zoo.save`
            wrote, or that contains `model.safetensors`, `pytorch_model.bin` or a single `.safetensors` file; or
            "hf-hub:OWNER/NAME".
        entry: the name of the entry of a checkpoint, such as "teacher"; by default the one described above.
        prefix: a prefix such as "module.encoder_q.". Only tensors whose names begin with the prefix are returned, under
            names without the prefix.

    Raises:
        WeightsError: the file is missing or truncated, may contain code, has no named tensors, or has several entries with
            tensors.

    Example:
        >>> torch.save(zoo.read_state_dict("dino.pth", entry="teacher", prefix="backbone."), "backbone.pth")
    """
    name = fspath(weights)
    path = hub_file(name) if name.startswith(HUB) else _find_file(expand_user(name))
    state = unwrap_state_dict(_read_content(path), name, entry)
    if not prefix:
        return state
    found = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    if not found:
        begin = ", ".join(sorted({key.partition(".")[0] for key in state})[:8])
        raise WeightsError(f"No tensor in {name} has a name that begins with {prefix!r}. The names begin with {begin}.")
    return found


def unwrap_state_dict(found: Any, source: str, entry: str | None = None, *, levels: int = LEVELS) -> dict[str, Tensor]:
    """Return the state dict in a file's content: the content itself, or an entry such as "state_dict" or "model".

    In the entry, the state dict may be nested in at most `levels` further entries of this kind.

    Raises:
        WeightsError: there is no state dict, or there are several entries with tensors.
    """
    if entry is None:
        if _is_state_dict(found):
            return dict(found)
        entry = _find_entry(found, source)
    elif not isinstance(found, Mapping) or entry not in found:
        has = _list_entries(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise WeightsError(f"{source} has no entry {entry!r}; it contains {has}.")
    inner = found[entry]
    if tensors := _tensors(inner):
        return tensors
    if levels == 0:
        raise _make_error(source, found)
    return unwrap_state_dict(inner, f"{source}[{entry!r}]", levels=levels - 1)


def _find_entry(found: Any, source: str) -> str:
    """Return the name of the checkpoint's entry that contains the weights."""
    if not isinstance(found, Mapping):
        raise _make_error(source, found)
    candidates = {name: value for name, value in found.items() if isinstance(name, str) and _wraps_tensors(value)}
    for names in (AVERAGED, USUAL):
        if known := [name for name in names if name in candidates]:
            candidates = {name: candidates[name] for name in known}
            break
    if not candidates:
        raise _make_error(source, found)
    if len(candidates) > 1:
        entries = ", ".join(f"{name!r} ({len(_tensors(value)) or 'several'} tensors)" for name, value in candidates.items())
        first = next(iter(candidates))
        raise WeightsError(
            f"{source} has several entries with tensors: {entries}. Save the entry that you want to a separate file: "
            f"torch.save(zoo.read_state_dict({source!r}, entry={first!r}), 'weights.pth')."
        )
    return next(iter(candidates))


def _is_state_dict(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and bool(found)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items())
    )


def _tensors(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        return {}
    return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _wraps_tensors(found: Any, levels: int = LEVELS) -> bool:
    """Return whether a value contains named tensors.

    The tensors may be in the value itself, or nested in at most `levels` levels of entries such as "state_dict" or "model".
    """
    if not isinstance(found, Mapping):
        return False
    if _tensors(found):
        return True
    return levels > 0 and any(_wraps_tensors(found.get(name), levels - 1) for name in (*AVERAGED, *USUAL))


def is_bounded(found: Any) -> bool:
    """Return whether plain data are small enough to process. A pickle of one kilobyte can expand to gigabytes, or endlessly."""
    left = MOST_VALUES
    waiting = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            return False
        if isinstance(value, Mapping):
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list | tuple):
            waiting += [(each, depth + 1) for each in value]
    return True


def _list_entries(found: Mapping[Any, Any]) -> str:
    first = ", ".join(map(reprlib.repr, islice(found, 6)))
    return f"{first}, ..." if len(found) > 6 else first


def _make_error(source: str, found: Any) -> WeightsError:
    holds = (
        f"a mapping with the keys {_list_entries(found) or 'none'}"
        if isinstance(found, Mapping)
        else f"a {type(found).__name__}"
    )
    return WeightsError(
        f"{source} contains no state dict (a mapping of names to tensors), but {holds}. Save model.state_dict()."
    )


def _find_file(place: Path) -> Path:
    if not is_folder(place):
        try:
            check_regular(place)
        except FileNotFoundError:
            raise WeightsError(f"The weights file {place} does not exist.") from None
        except OSError as cause:
            raise WeightsError(f"The weights {place} cannot be read: {cause.strerror}. Pass the path of a file.") from cause
        return place
    if (saved := _find_saved_weights(place)) is not None:
        return saved
    files = files_at(place)
    found = [path for path in files if path.name in FILES][:1] or [path for path in files if path.suffix == ".safetensors"]
    if len(found) != 1:
        raise WeightsError(
            f"The folder {place} has {len(found) or 'no'} .safetensors files and neither {' nor '.join(FILES)}; "
            "pass the path of a file."
        )
    return found[0]


def _find_saved_weights(folder: Path) -> Path | None:
    """Return the weights file that `zoo.save` wrote last, if any. Older files may remain after a copy or a killed process."""
    try:
        name = read_mapping(folder / CONFIG).get("weights")
    except ConfigError:  # there is no such file, or another program wrote it
        return None
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        return None
    return folder / name if (folder / name).is_file() else None


def _read_content(path: Path) -> Any:
    is_safetensors = path.suffix == ".safetensors"
    try:
        if is_safetensors:
            return load_file(path)
        return unpickled(path)
    except Exception as cause:
        kind = "safetensors" if is_safetensors else "a state dict of tensors alone (a pickle that may contain code is not read)"
        reason = _describe_imports(path) if isinstance(cause, pickle.UnpicklingError) else str(cause).partition("\n")[0]
        if "weights_only" in reason:  # torch explains how to run a file's code, which is bad advice
            reason = ""
        raise WeightsError(
            f"{path} could not be read as {kind}: {type(cause).__name__}{reason and f': {reason}'}. "
            "Save it with torch.save(model.state_dict(), path) or safetensors.torch.save_file."
        ) from cause


def unpickled(path: Path) -> Any:
    """Load a file that `torch.save` wrote, with its tensors on the CPU.

    Only tensors, plain data and `argparse.Namespace` objects, which many training scripts save, are allowed.

    Raises:
        UnpicklingError: the file contains other objects, which may run code.
        Exception: any other error that torch raises for a broken file.
    """
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # torch warns about pickles that it did not write, but refuses them anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def _describe_imports(path: Path) -> str:
    """Return, as text, the names that a refused pickle imports, except those that tensors and plain data need."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 (it reads only torch's zip files, and these names only improve a message)
        return ""
    return f"it imports {', '.join(map(repr, sorted(names)[:4]))}" if names else ""
