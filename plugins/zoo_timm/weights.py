"""Load timm's pretrained weights from the hub or a file, and report which tensors of the network the weights lack."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import timm
import torch
from timm.models import load_model_config_from_hf
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils.hooks import RemovableHandle

import zoo
from zoo_timm.creating import create_on_meta
from zoo_timm.packaged import PACKAGED, weights_file

__all__ = ["Make", "from_hub", "match", "read"]

Make = Callable[..., nn.Module]


def from_hub(name: str, make: Make, repository: str | None = None) -> nn.Module:
    """Return a new network with timm's own weights, or with the weights of a repository in timm's format.

    Args:
        name: timm's name of the architecture, with or without a tag.
        make: a function that builds the network; it accepts keywords such as `pretrained=True`.
        repository: OWNER/NAME on the hub; None for timm's own weights.

    Raises:
        zoo.errors.WeightsError: the weights could not be fetched, or belong to a different architecture.
    """
    try:
        if repository is None:
            return make(pretrained=True)
        config, architecture, _ = load_model_config_from_hf(repository)
        if architecture == name.partition(".")[0]:
            layers = _layer_names(architecture)  # a repository's config can lack the names of the layers that timm adapts
            return make(pretrained=True, pretrained_cfg={**layers, **config})
    except Exception as cause:
        raise zoo.errors.WeightsError(
            f"timm could not fetch the weights of {name}{f' from {repository}' if repository else ''}: "
            f"{type(cause).__name__}: {cause}. If this machine is offline, download the weights file "
            "on another machine, and pass its path as weights=."
        ) from cause
    raise zoo.errors.WeightsError(f"hf-hub:{repository} has weights of timm's {architecture}, but {name} was requested.")


def read(name: str, weights: str) -> dict[str, Tensor]:
    """Return the tensors of a weights file. If `weights` is "packaged", the file is that of the architecture's package."""
    if weights == "packaged":
        return _read_packaged(name)
    if not Path(weights).expanduser().exists():
        raise zoo.errors.WeightsError(
            f"weights={weights!r} is neither a file nor a known name. Pass None, 'default' (timm's own, from the hub), "
            "'hf-hub:OWNER/NAME', or the path of a .pth or .safetensors file with timm's key names."
        )
    return zoo.read_state_dict(weights)


def match(
    name: str, make: Make, network: Any, whole: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> zoo.plugin.MatchedWeights:
    """Match a file's tensors to those of a network.

    If all names and shapes are those of the installed timm, the file's tensors are used unchanged. Otherwise timm converts
    older key names, and adapts the tensors to the network's image size and input channels.

    Args:
        name: timm's name of the architecture.
        make: a function that builds the network without its classifier; it accepts keywords such as `pretrained=True`.
        network: a network from `make`, after timm's pruning.
        whole: the state dict of the whole architecture.
        state: the file's tensors.
    """
    named = network.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{each}." for each in ((named,) if isinstance(named, str) else named))
    wanted, flattened = network.state_dict(), _flatten_names(whole)
    matched = zoo.plugin.match_weights(
        state, wanted, architecture=whole, left_out=lambda key: key.startswith(classifiers), other_names=flattened
    )
    if matched.report.is_complete:
        return matched
    prefix = _shared_prefix(state, whole) if matched.prefix is None else matched.prefix
    names = {key: key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    names = {key: flattened.get(name, name) for key, name in names.items()}
    given = {name: state[key] for key, name in names.items()}
    reshaped = {line.partition(":")[0]: line for line in matched.report.reshaped}
    try:
        loaded, report_of_timm = _load(name, make, given)
        reshaped = {}
    except zoo.errors.WeightsError:
        if not reshaped:
            raise
        loaded, report_of_timm = _load(name, make, {key: tensor for key, tensor in given.items() if key not in reshaped})
    absent = {*report_of_timm.missing_keys, *reshaped}

    def is_known(key: str) -> bool:
        return key not in wanted and (key in whole or key.startswith(classifiers))

    report = zoo.WeightsReport(
        loaded=tuple(key for key in wanted if key not in absent),
        missing=tuple(key for key in _trained_names(network) if key in absent and key not in reshaped),
        reshaped=tuple(reshaped.values()),
        unexpected=tuple(f"{prefix}{key}" for key in report_of_timm.unexpected_keys if not is_known(key)),
        left_out=tuple(key for key in state if key not in names or is_known(names[key])),
    )
    tensors = {key: tensor for key, tensor in loaded.state_dict().items() if key in wanted and key not in absent}
    return zoo.plugin.MatchedWeights(tensors=tensors, report=report, prefix=prefix)


def _read_packaged(name: str) -> dict[str, Tensor]:
    """Return the weights in a package, under timm's names instead of the package's.

    The package stores its tensors in the same order as timm, so each is matched by its position. Its shape and the last part
    of its name must be those of timm's tensor at that position.
    """
    path = weights_file(name)
    given = zoo.read_state_dict(path)
    wanted = create_on_meta(name, {}).state_dict()
    pairs = list(zip(wanted.items(), given.items(), strict=False))
    fits = len(wanted) == len(given) and all(
        key.rpartition(".")[2] == other.rpartition(".")[2] and tensor.shape == found.shape
        for (key, tensor), (other, found) in pairs
    )
    if not fits:
        raise zoo.errors.WeightsError(
            f"{path} does not contain the tensors of timm's {name} in timm's order ({len(given)} found, {len(wanted)} needed). "
            f"Install another version of {PACKAGED[name].name}."
        )
    return {key: found for (key, _), (_, found) in pairs}


def _layer_names(architecture: str) -> dict[str, Any]:
    """Return timm's names of an architecture's first convolution and its classifier."""
    known: Any = timm.models.get_pretrained_cfg(architecture)
    facts = known.to_dict() if known else {}
    return {name: facts[name] for name in ("first_conv", "classifier") if name in facts}


def _flatten_names(names: Collection[str]) -> dict[str, str]:
    """Return a mapping to timm's usual tensor `names` from those of timm's features-only networks.

    For example, a name that begins with `stages.0.` begins with `stages_0.` in a features-only network.
    """
    return {name.replace(".", "_", 1): name for name in names if name.count(".") > 1}


def _shared_prefix(state: Mapping[str, Tensor], known: Collection[str]) -> str:
    """Return the prefix that all names in a file share but no name of the network has, such as `module.`."""
    prefix = ""
    beginnings = {key.partition(".")[0] for key in known}
    while True:
        steps = {key.removeprefix(prefix).partition(".")[0] for key in state}
        if len(steps) != 1 or (step := steps.pop()) in beginnings or f"{prefix}{step}" in state:
            return prefix
        prefix = f"{prefix}{step}."


def _load(name: str, make: Make, state: Mapping[str, Tensor]) -> tuple[nn.Module, Any]:
    """Build a network, let timm load these tensors, and return it with the missing and the unexpected keys."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), _record_reports() as reports:
        try:
            network = make(pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)})
        except Exception as cause:
            raise zoo.errors.WeightsError(
                f"The weights do not fit {name}: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}. "
                "Pass a state dict with timm's key names, as written by torch.save(model.state_dict(), path)."
            ) from cause
    return network, reports[network]


@contextmanager
def _record_reports() -> Iterator[Mapping[nn.Module, Any]]:
    """Record the missing and unexpected keys that `load_state_dict` reports, which timm itself only logs.

    Yield a mapping from each module that is created in this context to its report. The report is None until the module's
    `load_state_dict` is called.
    """
    reports: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
    handles: list[RemovableHandle] = []

    def listen(module: nn.Module, _: str, __: nn.Module | None) -> None:
        if module not in reports:
            reports[module] = None
            handles.append(module.register_load_state_dict_post_hook(reports.__setitem__))  # type: ignore[no-untyped-call]

    handles.append(register_module_module_registration_hook(listen))
    try:
        yield reports
    finally:
        for handle in handles:
            handle.remove()


def _trained_names(network: nn.Module) -> list[str]:
    """Return the names of the tensors that training changes: parameters and running statistics."""
    running = [key for key, _ in network.named_buffers() if key.endswith(("running_mean", "running_var"))]
    return [key for key, _ in network.named_parameters()] + running
