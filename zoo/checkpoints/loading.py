"""Load a saved model from a folder, a repository or a checkpoint. If the model is broken, the error states what is wrong."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zoo.checkpoints.hub import CONFIG, HUB, hub_folder
from zoo.checkpoints.matching import check_finite, is_same_kind
from zoo.checkpoints.saved_model import ModelFacts, PluginVersion, SavedModel, read_facts, structure_of
from zoo.checkpoints.state_dicts import is_bounded, unpickled
from zoo.common.configuration import read_mapping
from zoo.common.format_names import format_names
from zoo.common.printable import printable
from zoo.common.regular_files import check_regular, expand_user, is_folder, sha256_of
from zoo.errors import NegotiationError, OptionError, PluginError, UnknownIdError, WeightsError, ZooError
from zoo.model.building import build_pairing
from zoo.model.model import SegmentationModel
from zoo.pairing.resolve import resolve
from zoo.registry.registry import Entry, default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["load"]

PREFIX = "model."
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""The pattern of a path that may have been meant as the name of a repository on the hub."""
Sides: TypeAlias = tuple[Entry[EncoderSpec], Entry[DecoderSpec]]
OTHERS = "that this version of `zoo train` wrote. To load other weights, use zoo.build and zoo.load_weights."


def load(
    path: str | PathLike[str],
    *,
    token: str | bool | None = None,
    cache_dir: str | PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> SegmentationModel:
    """Load a saved model with its weights, its normalization and the names of its classes, in eval mode.

    Only tensors and plain data are read, never code. The model is built from the plugins with which it was saved. If the
    installed version of a plugin differs from the saved one in its first two numbers, a warning names the saved version and
    the command that installs it.
    The model has PyTorch's default dtype, usually float32, even if it was saved in another dtype.

    Args:
        path: a folder that `zoo.save` wrote; `"hf-hub:OWNER/NAME"` or `"hf-hub:OWNER/NAME@REVISION"` for a repository with a
            saved model; or a checkpoint that `zoo.train` wrote. The other arguments can be passed only with a
            repository.
        token: the token for a private repository; by default that of `hf auth login` or of the variable HF_TOKEN.
        cache_dir: the folder for downloaded files; by default huggingface_hub's own cache.
        force_download: whether to download the files even if the cache has them.
        local_files_only: whether to use only files in the cache and download nothing.

    Raises:
        OptionError: an argument for repositories was passed with a folder or a checkpoint.
        WeightsError: the model does not exist, is damaged, may contain code or was changed after saving, or the weights do not
            fit the model that is built.
        ConfigError: what `config.yaml` or the checkpoint states about the model is incomplete or wrong.
        NegotiationError: the plan of the pairing with the installed versions differs from the saved plan.
        ZooError: the pairing cannot be built, for example because a plugin is missing.
    """
    name = fspath(path)
    options = {
        "token": token,
        "cache_dir": cache_dir,
        "force_download": force_download,
        "local_files_only": local_files_only,
    }
    if name.startswith(HUB):
        return _load_folder(hub_folder(name, **options))
    if given := [option for option, value in options.items() if value not in (None, False)]:
        raise OptionError(
            f"{' and '.join(given)} can be passed only for a repository on the Hugging Face hub, but {name!r} is a local path. "
            f"Pass 'hf-hub:OWNER/NAME', or leave out {' and '.join(given)}."
        )
    local = expand_user(name)
    return _load_folder(local) if is_folder(local) else _load_checkpoint(local)


def _load_folder(folder: Path) -> SegmentationModel:
    path = folder / CONFIG
    if not os.path.lexists(path):
        checkpoint = next((name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()), None)
        if checkpoint:
            raise WeightsError(f"{folder} is the folder of a training run, not of a saved model. Pass {folder / checkpoint}.")
        raise WeightsError(f"{folder} contains no saved model: it has no {CONFIG}. Pass a folder that `zoo.save` wrote.")
    facts = read_facts(SavedModel, read_mapping(path, "format: 1"), f"{path} does not describe a saved model")
    sides = _check_sides(facts, folder)
    weights = folder / facts.weights
    state = _read_state(weights)
    empty = _build_on_meta(facts, sides)
    _check_unaltered(weights, state, facts.sha256, empty)
    return _build_filled(facts, sides, state, folder, empty)


def _check_sides(facts: ModelFacts, path: Path) -> Sides:
    """Return the encoder and the decoder of a saved model, or raise a NegotiationError if their plan is not the saved one."""
    pairing, plan = facts.make_pairing(), facts.plan
    sides = _find_sides(facts, path)
    _warn_of_other_versions(facts, sides, path)
    plan_here = structure_of(resolve(replace(pairing, weights=None), *sides).plan)
    differing = [key for key in plan.keys() | plan_here.keys() if plan.get(key) != plan_here.get(key)]
    if differing:
        lines = "".join(
            f"\n  {key}: saved {plan.get(key)!r}\n  {' ' * len(key)}  here  {plan_here.get(key)!r}" for key in sorted(differing)
        )
        raise NegotiationError(
            f"The plan of {pairing} in {path} differs from the plan that the installed versions make, so the weights do not "
            "fit:"
            f"{lines}\n{_describe_plugins(facts)}"
        )
    return sides


def _find_sides(facts: ModelFacts, path: Path) -> Sides:
    """Find the encoder and the decoder in the plugins with which the model was saved.

    Encoders and decoders of the same name in other plugins are not used.
    """

    def full_ids(id: str) -> list[str]:
        return [full_id for full_id in facts.plugins if full_id.endswith(f":{id}")] or [id]

    registry, pairing = default_registry(), facts.make_pairing()
    try:
        # if the encoder and the decoder have the same bare name, two ids match: first the encoder's, then the decoder's
        return registry.encoder(full_ids(pairing.encoder)[0]), registry.decoder(full_ids(pairing.decoder)[-1])
    except UnknownIdError as cause:
        raise UnknownIdError(
            f"{path} needs a plugin that is not installed here: {cause}\n{_describe_plugins(facts)}"
        ) from cause


def _warn_of_other_versions(facts: ModelFacts, sides: Sides, path: Path) -> None:
    """Warn if a plugin's version differs from the saved one in its first two numbers, since the output may then differ."""
    messages: dict[str, str] = {}
    for entry in sides:
        saved = facts.plugins.get(entry.full_id)
        if saved and (saved.distribution, _series(saved.version)) != (entry.distribution, _series(entry.version)):
            text = (
                f"{path} was saved with {saved.distribution} {saved.version}. The installed {entry.full_id} comes from "
                f"{entry.distribution} {entry.version}, so the model's output may differ. To install the saved version: "
                f'pip install "{saved.distribution}=={saved.version}"'
            )
            messages.setdefault(saved.distribution, text)
    for text in map(printable, messages.values()):
        warnings.warn(text, stacklevel=5)  # shown at the call of `load`


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _is_installed(full_id: str, plugin: PluginVersion) -> bool:
    """Return whether the installed encoder or decoder comes from the version with which the model was saved."""
    for find in (default_registry().encoder, default_registry().decoder):
        with suppress(ZooError):
            entry = find(full_id)
            return (entry.distribution, entry.version) == (plugin.distribution, plugin.version)
    return False


def _describe_plugins(facts: ModelFacts) -> str:
    """Return text with the command that installs a model's plugins, and a hint about what a script registered."""
    pairing = facts.make_pairing()
    missing = [each for full_id, each in facts.plugins.items() if not _is_installed(full_id, each)]
    requirements = dict.fromkeys(f'"{each.distribution}=={each.version}"' for each in missing)
    registered = [
        f"the {kind} {id}"
        for kind, id in (("encoder", pairing.encoder), ("decoder", pairing.decoder))
        if not any(full_id == id or full_id.endswith(f":{id}") for full_id in facts.plugins)
    ]
    lines = (
        [f"To install the plugins with which the model was saved: pip install {' '.join(requirements)}"] if requirements else []
    )
    if registered:
        lines.append(
            f"A script registered {' and '.join(registered)}. Run that script first, or pass --plugin FILE to a command."
        )
    return "\n".join(lines)


def _read_state(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors. The file is mapped into memory, so a tensor that is not used is not read."""
    try:
        check_regular(path)
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, KeyError, RuntimeError) as cause:  # a KeyError is raised for a dtype that PyTorch does not have
        raise WeightsError(
            f"{path} cannot be read as safetensors ({type(cause).__name__}: {cause}). The file may be truncated or altered. "
            "Copy the model's folder from its source again."
        ) from cause
    except OSError as cause:
        raise WeightsError(f"{path} could not be read: {cause.strerror}. The model is incomplete; save it again.") from cause
    return state


def _check_unaltered(path: Path, state: dict[str, Tensor], sha256: str, empty: SegmentationModel | None) -> None:
    """Raise a WeightsError if a file has more values than the model, or if its checksum is wrong.

    The number of values is checked first, since this check reads no tensor. The checksum requires reading the whole file.
    """
    held = sum(tensor.numel() for tensor in state.values())
    wanted = {} if empty is None else empty.state_dict()
    if wanted and held > (size := sum(tensor.numel() for tensor in wanted.values())):
        strange = sorted(state.keys() - wanted.keys())
        extra = f" and does not have {format_names(strange, 3)}" if strange else ""
        raise WeightsError(
            f"{path} does not contain the weights of the model in the {CONFIG} next to it: it has {held:,} values, but the "
            f"model has {size:,}{extra}. Copy the model's folder from its source again, or save the model again."
        )
    if sha256_of(path) != sha256:
        raise WeightsError(
            f"{path} does not match the checksum in the {CONFIG} next to it: the file is truncated or altered "
            f"({path.stat().st_size:,} bytes). Copy the model's folder from its source again."
        )


def _load_checkpoint(path: Path) -> SegmentationModel:
    checkpoint = _read_checkpoint(path)
    content = checkpoint.get("zoo")
    content = content.get("model") if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not a checkpoint {OTHERS}")
    if not is_bounded(content):
        raise WeightsError(
            f"In {path}, the description of the model is nested too deeply or is too large, so the file is not a checkpoint "
            f"{OTHERS}"
        )
    facts = read_facts(ModelFacts, content, f"{path} is not a checkpoint {OTHERS}\nThe description of the model in this file")
    sides = _check_sides(facts, path)
    state = {key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)}
    if not all(isinstance(tensor, Tensor) and tensor.layout == torch.strided for tensor in state.values()):
        raise WeightsError(f"{path} is not a checkpoint {OTHERS}")
    return _build_filled(facts, sides, state, path, _build_on_meta(facts, sides))


def _build_on_meta(facts: ModelFacts, sides: Sides) -> SegmentationModel | None:
    """Return the model on the meta device, which needs no memory for weights; None if a plugin needs tensor values."""
    with suppress(PluginError), torch.device("meta"):
        return build_pairing(replace(facts.make_pairing(), weights=None), *sides)
    return None


def _build_filled(
    facts: ModelFacts, sides: Sides, state: dict[str, Tensor], path: Path, empty: SegmentationModel | None
) -> SegmentationModel:
    """Return the model with its weights. `empty` is the model on the meta device, with which the weights are compared first."""
    if empty is not None:
        with torch.device("meta"):
            _fill(empty, {name: tensor.to("meta") for name, tensor in state.items()}, path, facts)
    model = build_pairing(replace(facts.make_pairing(), weights=None), *sides)
    _fill(model, state, path, facts)
    facts.apply_to(model)
    return model.eval()


def _fill(model: SegmentationModel, state: dict[str, Tensor], path: Path, facts: ModelFacts) -> None:
    wanted = model.state_dict()
    for name, tensor in state.items():
        if name in wanted and not is_same_kind(tensor, wanted[name]):
            raise WeightsError(
                f"{path}: {name} has dtype {tensor.dtype}, but the model needs {wanted[name].dtype}. Quantized weights cannot "
                "be loaded. Save the model before its quantization."
            )
    try:
        model.load_state_dict(state)
    except RuntimeError as cause:
        raise WeightsError(f"{path} does not fit {model.pairing}: {cause}\n{_describe_plugins(facts)}") from cause
    check_finite(model.state_dict(), model, str(path))


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
    except FileNotFoundError:
        hint = f" For a repository of the hub, pass {HUB}{path.as_posix()}." if REPOSITORY.fullmatch(path.as_posix()) else ""
        raise WeightsError(f"{path} does not exist. Pass a checkpoint file or the folder of a saved model.{hint}") from None
    except OSError as cause:
        raise WeightsError(
            f"{path} could not be read: {cause.strerror}. Pass a checkpoint or the folder of a saved model."
        ) from cause
    try:
        found = unpickled(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as cause:
        what = (
            "may contain code and is not read"
            if isinstance(cause, pickle.UnpicklingError)
            else "is damaged or not a checkpoint"
        )
        raise WeightsError(f"{path} {what} ({type(cause).__name__}).") from cause
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise WeightsError(f"{path} is not a checkpoint {OTHERS}")
    checkpoint: dict[str, Any] = found
    return checkpoint
