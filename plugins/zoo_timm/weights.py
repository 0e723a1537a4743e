"""timm's pretrained weights, from the hub or from a file, with nothing left as it was made in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_model_config_from_hf, load_state_dict
from torch import Tensor, nn

import zoo
from zoo_timm.packaged import PACKAGED, weights_file

__all__ = ["from_file", "from_hub", "from_package"]

Make = Callable[..., nn.Module]


def from_hub(name: str, make: Make, repository: str | None = None) -> nn.Module:
    """Return the network with the weights that timm knows for it, or with those of a repository in timm's format.

    Raises:
        zoo.WeightsError: they could not be fetched, or are another architecture's.
    """
    try:
        if repository is None:
            return make(pretrained=True)
        config, architecture, _ = load_model_config_from_hf(repository)
        if architecture == name.partition(".")[0]:
            layers = _layers_named(architecture)  # a repository need not say which layers timm is to adapt or leave out
            return make(pretrained=True, pretrained_cfg={**layers, **config})
    except Exception as cause:
        raise zoo.WeightsError(
            f"timm could not fetch the weights of {name}{f' from {repository}' if repository else ''}: "
            f"{type(cause).__name__}: {cause}. Without a network, fetch them elsewhere and pass the file's path as weights=."
        ) from cause
    raise zoo.WeightsError(f"hf-hub:{repository} holds weights of timm's {architecture}; {name} was asked for.")


def from_file(name: str, weights: str, make: Make) -> nn.Module:
    """Load a file through timm, which brings old key names and other sizes to the network's, and refuse what it leaves out.

    timm loads a network without a classifier without strictness. So the file is loaded twice, the second time with other
    numbers: a parameter that is the same after both did not come from the file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise zoo.WeightsError(
            f"weights={weights!r} is neither a file nor a name. Give None, 'default' (timm's own, from the hub), "
            "'hf-hub:OWNER/NAME', or the path of a .pth or .safetensors file with timm's key names."
        )
    state = _read(path)
    network, other = (
        _loaded(name, weights, make, numbers) for numbers in (state, {key: _changed(value) for key, value in state.items()})
    )
    twins = other.state_dict()
    left = [key for key, tensor in _trained(network).items() if torch.equal(tensor, twins[key])]
    if left:
        raise zoo.WeightsError(
            f"{weights} does not fit {name}: it has nothing for {len(left)} tensors ({', '.join(left[:3])}, ...), "
            "which would stay as they were made. Pass weights of this architecture."
        )
    return network


def from_package(name: str, make: Make) -> nn.Module:
    """Return the network with the weights that a package carries, under the names that it gives them.

    Its tensors come in timm's order, so that each is told by its place, its shape and the last word of its name.
    """
    path = weights_file(name)
    given = _read(path)
    with torch.device("meta"):
        wanted = timm.create_model(name).state_dict()
    pairs = list(zip(wanted.items(), given.items(), strict=False))
    fits = len(wanted) == len(given) and all(
        key.rpartition(".")[2] == other.rpartition(".")[2] and tensor.shape == found.shape
        for (key, tensor), (other, found) in pairs
    )
    if not fits:
        raise zoo.WeightsError(
            f"{path} does not hold the tensors of timm's {name} in their order ({len(given)} found, {len(wanted)} needed); "
            f"another version of {PACKAGED[name].name} may."
        )
    return _loaded(name, str(path), make, {key: found for (key, _), (_, found) in pairs})


def _layers_named(architecture: str) -> dict[str, Any]:
    """Return what timm calls an architecture's first convolution and its classifier."""
    known: Any = timm.models.get_pretrained_cfg(architecture)
    facts = known.to_dict() if known else {}
    return {name: facts[name] for name in ("first_conv", "classifier") if name in facts}


def _read(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors; a pickle that may hold code is refused."""
    try:
        state: dict[str, Any] = load_state_dict(str(path), weights_only=True)
    except Exception as cause:
        raise zoo.WeightsError(
            f"{path} could not be read as tensors alone (a pickle that may hold code is not read): {type(cause).__name__}. "
            "Save it with torch.save(model.state_dict(), path) or safetensors.torch.save_file."
        ) from cause
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _loaded(name: str, weights: str, make: Make, state: dict[str, Tensor]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            network = make(pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)})
        except Exception as cause:
            raise zoo.WeightsError(
                f"{weights} does not fit {name}: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}. "
                "It must hold a state dict with timm's key names, as torch.save(model.state_dict(), path) writes it."
            ) from cause
    config: Any = network.pretrained_cfg
    config.pop("state_dict", None)  # timm would keep the file's tensors beside the network's
    return network


def _changed(tensor: Tensor) -> Tensor:
    return ~tensor if tensor.dtype == torch.bool else tensor + 1


def _trained(network: nn.Module) -> dict[str, Tensor]:
    """Return what training makes: parameters and running statistics."""
    running = {key: value for key, value in network.named_buffers() if key.endswith(("running_mean", "running_var"))}
    return {**dict(network.named_parameters()), **running}
