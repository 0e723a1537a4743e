"""Read the tensors of a file that was made elsewhere: safetensors, or a pickle of tensors alone; never code."""

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
"""What checkpoints call weights averaged over the training; they are the ones to use, as timm does."""
LEVELS = 2
"""How many entries deep a state dict may lie within a checkpoint's own entry."""
DEEPEST, MOST_VALUES = 32, 100_000
"""How deep, and how many, the values may be that a checkpoint says of its model."""
USUAL = ("state_dict", "model_state_dict", "model", "net", "network")


def read_state_dict(weights: str | PathLike[str], *, entry: str | None = None, prefix: str = "") -> dict[str, Tensor]:
    """Return a file's tensors by name, on the CPU, without anything else that a checkpoint holds.

    A checkpoint's own entry is looked for: `state_dict_ema`, `model_ema` or `ema_state_dict` (weights averaged over the
    training), else `state_dict`, `model_state_dict`, `model`, `net` or `network`, else the only one that holds tensors.

    Args:
        weights: the path of a `.safetensors` file, or of any other as `torch.save` writes it; of a folder that
            `zoo.save` wrote, or that holds `model.safetensors`, `pytorch_model.bin` or one `.safetensors` file; or
            "hf-hub:OWNER/NAME".
        entry: which entry of a checkpoint, such as "teacher".
        prefix: return the tensors whose names begin with it, without it, such as "module.encoder_q.".

    Raises:
        WeightsError: the file is missing, is cut short, may hold code, or holds no tensors by name; or several entries do.

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
        raise WeightsError(f"No tensor of {name} has a name that begins with {prefix!r}; they begin with {begin}.")
    return found


def unwrap_state_dict(found: Any, source: str, entry: str | None = None, *, levels: int = LEVELS) -> dict[str, Tensor]:
    """Return the state dict in a file's content, under any usual name of an entry, at most so many levels down.

    Raises:
        WeightsError: there is none, or there are several that could be meant.
    """
    if entry is None:
        if _is_state_dict(found):
            return dict(found)
        entry = _find_entry(found, source)
    elif not isinstance(found, Mapping) or entry not in found:
        has = _list_entries(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise WeightsError(f"{source} has no entry {entry!r}; it holds {has}.")
    inner = found[entry]
    if tensors := _tensors(inner):
        return tensors
    if levels == 0:
        raise _make_error(source, found)
    return unwrap_state_dict(inner, f"{source}[{entry!r}]", levels=levels - 1)


def _find_entry(found: Any, source: str) -> str:
    """Return the name of the entry of a checkpoint that holds its weights."""
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
            f"{source} has several entries that could be meant: {entries}. Save the one that you mean as a file of its own: "
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
    """Return whether this holds tensors by name, or an entry of a usual name does, at most so many levels down."""
    if not isinstance(found, Mapping):
        return False
    if _tensors(found):
        return True
    return levels > 0 and any(_wraps_tensors(found.get(name), levels - 1) for name in (*AVERAGED, *USUAL))


def is_bounded(found: Any) -> bool:
    """Return whether plain data are small enough to handle: a kilobyte of a pickle can expand to gigabytes, or without end."""
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
    holds = f"a mapping of {_list_entries(found) or 'nothing'}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
    return WeightsError(f"{source} holds no state dict (names to tensors), but {holds}; save model.state_dict().")


def _find_file(place: Path) -> Path:
    if not is_folder(place):
        try:
            check_regular(place)
        except FileNotFoundError:
            raise WeightsError(f"There is no file of weights {place}.") from None
        except OSError as cause:
            raise WeightsError(f"The weights {place} cannot be read: {cause.strerror}. Give a file.") from cause
        return place
    if (saved := _find_saved_weights(place)) is not None:
        return saved
    files = files_at(place)
    found = [path for path in files if path.name in FILES][:1] or [path for path in files if path.suffix == ".safetensors"]
    if len(found) != 1:
        raise WeightsError(
            f"The folder {place} has {len(found) or 'no'} .safetensors files and neither {' nor '.join(FILES)}; "
            "give a file's path."
        )
    return found[0]


def _find_saved_weights(folder: Path) -> Path | None:
    """Return the weights that `zoo.save` wrote there last; after a copy or a kill, others may lie beside them."""
    try:
        name = read_mapping(folder / CONFIG).get("weights")
    except ConfigError:  # none, or another program's
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
        kind = "safetensors" if is_safetensors else "a state dict of tensors alone (a pickle that may hold code is not read)"
        reason = _describe_imports(path) if isinstance(cause, pickle.UnpicklingError) else str(cause).partition("\n")[0]
        if "weights_only" in reason:  # torch explains how to run a file's code, which is bad advice
            reason = ""
        raise WeightsError(
            f"{path} could not be read as {kind}: {type(cause).__name__}{reason and f': {reason}'}. "
            "Save it with torch.save(model.state_dict(), path) or safetensors.torch.save_file."
        ) from cause


def unpickled(path: Path) -> Any:
    """Read a file of `torch.save`, on the CPU: tensors, plain data, and the parsed arguments that many training scripts save.

    Raises:
        UnpicklingError: the file holds more, which may be code.
        Exception: any other error that torch raises for a broken file.
    """
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # of pickles that torch did not write, which it then refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def _describe_imports(path: Path) -> str:
    """Return the names that a refused pickle imports beside tensors and plain data."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 (it reads torch's zip files alone, and only names are asked for)
        return ""
    return f"it asks for {', '.join(map(repr, sorted(names)[:4]))}" if names else ""
