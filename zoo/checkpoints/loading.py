"""From a folder, a repository or a checkpoint to the model that was saved there: whole, or an error that says what is wrong."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
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
from zoo.checkpoints.saved_model import PluginVersion, SavedModel, structure_of
from zoo.checkpoints.state_dicts import is_bounded, unpickled
from zoo.common.configuration import checked, read_mapping
from zoo.common.format_names import format_names
from zoo.common.printable import printable
from zoo.common.regular_files import check_regular, expand_user, is_folder, sha256_of
from zoo.errors import ConfigError, NegotiationError, OptionError, PluginError, UnknownIdError, WeightsError
from zoo.model.building import build_pairing
from zoo.model.model import SegmentationModel
from zoo.pairing.pairing import Pairing
from zoo.pairing.resolve import resolve
from zoo.registry.licenses import Licences
from zoo.registry.registry import Entry, default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec, Preprocessing

__all__ = ["load"]

PREFIX = "model."
Plugins: TypeAlias = Mapping[str, PluginVersion]
"""By full id, where encoder and decoder came from."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""What may be meant for one of the hub's."""
Sides: TypeAlias = tuple[Entry[EncoderSpec], Entry[DecoderSpec]]
OTHERS = "as `zoo train` writes one. Weights of other programs are for zoo.load_weights, into a model that zoo.build made."


def load(
    path: str | PathLike[str],
    *,
    token: str | bool | None = None,
    cache_dir: str | PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> SegmentationModel:
    """Return the model that was saved, in eval mode, with its weights, its normalisation and its classes' names.

    Only tensors and plain data are read, never code. A folder's model is built from the plugins that it was saved with; where
    one of them has another version here, by its first two numbers, a warning says which it was and what installs it. The model
    is in PyTorch's default type of numbers, float32, whichever it was saved in.

    Args:
        path: a folder that `zoo.save` wrote; `"hf-hub:OWNER/NAME"` or `"hf-hub:OWNER/NAME@REVISION"`, a repository that holds
            one; or a checkpoint that `zoo.train` wrote. The other arguments are for a repository alone.
        token: for a private repository; by default that of `hf auth login` or the variable HF_TOKEN.
        cache_dir: where fetched files are kept, by default huggingface_hub's own cache.
        force_download: fetch the files although the cache has them.
        local_files_only: fetch nothing; the cache must have the files.

    Raises:
        OptionError: an option of repositories was given for a folder or a checkpoint.
        WeightsError: there is nothing, or it is broken, may hold code, was altered, or does not fit.
        ConfigError: its `config.yaml` is none.
        NegotiationError: its plan comes out differently here.
        ZooError: the pairing cannot be built here, for want of a plugin, say.
    """
    name = fspath(path)
    options = {
        "token": token,
        "cache_dir": cache_dir,
        "force_download": force_download,
        "local_files_only": local_files_only,
    }
    if name.startswith(HUB):
        return _from_folder(hub_folder(name, **options))
    if given := [option for option, value in options.items() if value not in (None, False)]:
        raise OptionError(
            f"{', '.join(given)}: for a repository of the Hugging Face hub alone, and {name!r} is a path here. "
            f"Give 'hf-hub:OWNER/NAME', or leave {given[0]} out."
        )
    place = expand_user(name)
    return _from_folder(place) if is_folder(place) else _from_checkpoint(place)


def _from_folder(place: Path) -> SegmentationModel:
    path = place / CONFIG
    if not os.path.lexists(path):
        raise WeightsError(f"{place} holds no saved model: it has no {CONFIG}. `zoo.save(model, folder)` writes one.")
    facts = checked(SavedModel, read_mapping(path, "format: 1"), f"{path} is no saved model's")
    pairing = _pairing(facts.pairing, path)
    sides = _checked_sides(pairing, facts.plan, facts.plugins, place)
    weights = place / facts.weights
    state = _state(weights)
    empty = _on_meta(pairing, sides)
    _check_unaltered(weights, state, facts.sha256, empty)
    model = _filled(pairing, sides, state, place, facts.plugins, empty)
    return _finished(model, pairing, facts.model_dump(), place)


def _pairing(facts: Mapping[str, Any], path: Path) -> Pairing:
    try:
        return Pairing(**facts)
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"{path}: pairing: {cause}") from cause


def _checked_sides(pairing: Pairing, plan: Mapping[str, Any], plugins: Plugins, place: Path) -> Sides:
    """Return encoder and decoder from where they were, after finding out that the model can be built as it was."""
    sides = _sides(pairing, plugins, place)
    _warn_of_other_versions(plugins, sides, place)
    found = structure_of(resolve(replace(pairing, weights=None), *sides).plan)
    differing = [key for key in plan.keys() | found.keys() if plan.get(key) != found.get(key)]
    if differing:
        lines = "".join(
            f"\n  {key}: saved {plan.get(key)!r}\n  {' ' * len(key)}  here  {found.get(key)!r}" for key in sorted(differing)
        )
        raise NegotiationError(
            f"The plan of {pairing}, saved in {place}, comes out differently here, so that its weights do not belong to it:"
            f"{lines}\n{_told_plugins(plugins, pairing)}"
        )
    return sides


def _sides(pairing: Pairing, plugins: Plugins, place: Path) -> Sides:
    """Look both sides up where they came from: a bare name may be another plugin's here, or several plugins'."""

    def full(id: str) -> list[str]:
        return [full_id for full_id in plugins if full_id.endswith(f":{id}")] or [id]

    registry = default_registry()
    try:
        # a bare name of both sides is in two of the ids, the encoder's first
        return registry.encoder(full(pairing.encoder)[0]), registry.decoder(full(pairing.decoder)[-1])
    except UnknownIdError as cause:
        raise UnknownIdError(f"{place} needs what is not installed here: {cause}\n{_told_plugins(plugins, pairing)}") from cause


def _warn_of_other_versions(plugins: Plugins, sides: Sides, place: Path) -> None:
    """Tell of plugins whose first two numbers of the version are others: what they compute may be, too, in the same plan."""
    told: dict[str, str] = {}
    for entry in sides:
        saved = plugins.get(entry.full_id)
        if saved and (saved.distribution, _series(saved.version)) != (entry.distribution, _series(entry.version)):
            text = (
                f"{place} was saved with {saved.distribution} {saved.version}; here {entry.full_id} comes from "
                f"{entry.distribution} {entry.version}, and the model's output may differ. What it was saved with: "
                f'pip install "{saved.distribution}=={saved.version}"'
            )
            told.setdefault(saved.distribution, text)
    for text in map(printable, told.values()):
        warnings.warn(text, stacklevel=5)  # at the call of `load`


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _told_plugins(plugins: Plugins, pairing: Pairing) -> str:
    wanted = dict.fromkeys(f'"{each.distribution}=={each.version}"' for each in plugins.values())
    own = [
        f"the {kind} {id}"
        for kind, id in (("encoder", pairing.encoder), ("decoder", pairing.decoder))
        if not any(full_id == id or full_id.endswith(f":{id}") for full_id in plugins)
    ]
    lines = [f"It was saved with: pip install {' '.join(wanted)}"] if wanted else []
    if own:
        lines.append(f"A script's own: {' and '.join(own)}. Run the file that registers it first; commands take --plugin FILE.")
    return "\n".join(lines)


def _state(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors mapped into memory: what is not used is not read."""
    try:
        check_regular(path)
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, KeyError, RuntimeError) as cause:  # KeyError: a type of numbers that PyTorch has not
        raise WeightsError(
            f"{path} cannot be read as safetensors ({type(cause).__name__}: {cause}): it is cut short, or was altered, or is "
            "too large. Copy the whole folder again."
        ) from cause
    except OSError as cause:
        raise WeightsError(f"{path} could not be read: {cause.strerror}. The model is not whole; save it again.") from cause
    return state


def _check_unaltered(path: Path, state: dict[str, Tensor], sha256: str, empty: SegmentationModel | None) -> None:
    """Raise unless a file is the one that was saved; one that is too large for the model is not even read."""
    held = sum(tensor.numel() for tensor in state.values())
    wanted = {} if empty is None else empty.state_dict()
    if wanted and held > (size := sum(tensor.numel() for tensor in wanted.values())):
        strange = sorted(state.keys() - wanted.keys())
        extra = f", and {format_names(strange, 3)} is not in it" if strange else ""
        raise WeightsError(
            f"{path} is not the weights of the model in {CONFIG} beside it: it holds {held:,} numbers, and the model has "
            f"{size:,}{extra}. Copy the whole folder again, or save the model again."
        )
    if sha256_of(path) != sha256:
        raise WeightsError(
            f"{path} is not the file that {CONFIG} beside it names: it is cut short, or was altered "
            f"({path.stat().st_size:,} bytes). Copy the whole folder again."
        )


def _from_checkpoint(place: Path) -> SegmentationModel:
    checkpoint = _read(place)
    facts = checkpoint.get("zoo")
    if not isinstance(facts, dict) or not facts.get("pairing"):
        raise WeightsError(f"{place} is no checkpoint of a pairing, {OTHERS}")
    if not is_bounded(facts):
        raise WeightsError(f"{place} is no checkpoint of a pairing, {OTHERS} What it says of its model is nested without end.")
    pairing = _pairing(facts["pairing"], place)
    try:
        plan, plugins = dict(facts["plan"]), {id: PluginVersion(**each) for id, each in facts["plugins"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise WeightsError(f"{place} does not say how its model was built ({type(cause).__name__}), {OTHERS}") from cause
    sides = _checked_sides(pairing, plan, plugins, place)
    state = {key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)}
    if not all(isinstance(tensor, Tensor) and tensor.layout == torch.strided for tensor in state.values()):
        raise WeightsError(f"{place} is no checkpoint of a pairing, {OTHERS}")
    model = _filled(pairing, sides, state, place, plugins, _on_meta(pairing, sides))
    return _finished(model, pairing, facts, place)


def _on_meta(pairing: Pairing, sides: Sides) -> SegmentationModel | None:
    """Return the model without memory for its weights; None where a plugin needs real tensors."""
    with suppress(PluginError), torch.device("meta"):
        return build_pairing(replace(pairing, weights=None), *sides)
    return None


def _filled(
    pairing: Pairing,
    sides: Sides,
    state: dict[str, Tensor],
    place: Path,
    plugins: Plugins,
    empty: SegmentationModel | None,
) -> SegmentationModel:
    """Return the model with its weights; it takes memory only where they fit the one on the meta device."""
    if empty is not None:
        with torch.device("meta"):
            _fill(empty, {name: tensor.to("meta") for name, tensor in state.items()}, place, plugins)
    model = build_pairing(replace(pairing, weights=None), *sides)
    _fill(model, state, place, plugins)
    return model


def _fill(model: SegmentationModel, state: dict[str, Tensor], place: Path, plugins: Plugins) -> None:
    wanted = model.state_dict()
    for name, tensor in state.items():
        if name in wanted and not is_same_kind(tensor, wanted[name]):
            raise WeightsError(
                f"{place}: {name} holds {tensor.dtype}, and the model needs {wanted[name].dtype}. Quantized weights are not "
                "loaded; save the model that they were made from."
            )
    try:
        model.load_state_dict(state)
    except RuntimeError as cause:
        raise WeightsError(f"{place} does not fit {model.pairing}: {cause}\n{_told_plugins(plugins, model.pairing)}") from cause
    check_finite(model.state_dict(), model, str(place))


def _finished(model: SegmentationModel, pairing: Pairing, facts: Mapping[str, Any], place: Path) -> SegmentationModel:
    """Return the model with what was stated beside its weights."""
    try:
        told = facts["preprocessing"]
        low, high = told["value_range"]
        preprocessing = Preprocessing(mean=tuple(told["mean"]), std=tuple(told["std"]), value_range=(low, high))
        licences = Licences(**facts["licences"])
        classes, colours = tuple(facts["classes"]), tuple((red, green, blue) for red, green, blue in facts["colours"])
        if len(preprocessing.mean) != pairing.in_channels:
            raise ValueError(f"normalization of {len(preprocessing.mean)} channels for images of {pairing.in_channels}")
        for what, given in (("names", classes), ("colours", colours)):
            if given and len(given) != pairing.classes:
                raise ValueError(f"{len(given)} {what} for {pairing.classes} classes")
    except (KeyError, TypeError, ValueError) as cause:
        raise ConfigError(
            f"{place}: what is said of normalisation, licences, classes or colours cannot be read "
            f"({type(cause).__name__}: {cause}). Save the model again."
        ) from cause
    model.pairing, model.preprocessing, model.licences = pairing, preprocessing, licences
    model.class_names, model.colours = classes, colours
    model.has_one_class_per_pixel = facts.get("one_class_per_pixel", True)
    return model.eval()


def _read(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
    except FileNotFoundError:
        hint = f" A repository is {HUB}{path.as_posix()}." if REPOSITORY.fullmatch(path.as_posix()) else ""
        raise WeightsError(f"There is no checkpoint and no folder {path}.{hint}") from None
    except OSError as cause:
        raise WeightsError(
            f"{path} could not be read: {cause.strerror}. Give a checkpoint or a saved model's folder."
        ) from cause
    try:
        found = unpickled(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as cause:
        what = "may hold code, and is not read" if isinstance(cause, pickle.UnpicklingError) else "is broken or no checkpoint"
        raise WeightsError(f"{path} {what} ({type(cause).__name__}).") from cause
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise WeightsError(f"{path} is no checkpoint of a pairing, {OTHERS}")
    checkpoint: dict[str, Any] = found
    return checkpoint
