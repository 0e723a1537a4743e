"""Any timm architecture as an encoder, through timm's own `forward_intermediates`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_timm.creating import create_model, create_on_meta
from zoo_timm.index import Architecture, index, sides
from zoo_timm.pruning import make_buffers, unused_parameters
from zoo_timm.weights import Make, from_hub, match, read

__all__ = ["TimmEncoder"]

HUB, DEFAULT = "hf-hub:", "default"


class TimmEncoder(nn.Module):
    """A timm architecture without its classifier (Wightman, huggingface/pytorch-image-models).

    Shapes: (N, in_channels, H, W) -> the requested maps, each (N, C, H/stride, W/stride).

    Args:
        architecture: timm's name of the architecture.
        tag: timm's tag of the pretrained weights; None for timm's default tag.
        maps: the names of the maps to return (timm's module names), fine to coarse. Stages after the last of them are dropped.
        in_channels: the number of image channels. If it is not 3, timm adapts the first convolution and its weights.
        weights: None, "default" (timm's own pretrained weights, from the hub), "packaged" (the weights in an installed
            package, for a few architectures), "hf-hub:OWNER/NAME" (a repository in timm's format), or anything else that
            `zoo.read_state_dict` accepts. A file must have timm's current key names, or older names that timm can convert. The
            names may have any prefix.
        image_size: the (H, W) for which position embeddings and windows are created; None for the size that timm's
            weights expect.
        options: keyword arguments of `timm.create_model`, such as `drop_path_rate`.

    Raises:
        zoo.errors.WeightsError: the weights cannot be found or fetched, or do not fit.
        zoo.errors.OptionError: the architecture does not accept an option, or an option changes the maps' channels or strides.
    """

    def __init__(
        self,
        *,
        architecture: str,
        maps: Sequence[str],
        tag: str | None = None,
        in_channels: int = 3,
        weights: str | None = None,
        image_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        facts = index()[architecture]
        wanted = _timm_keywords(facts, in_channels, image_size, options)
        name = architecture if tag is None else f"{architecture}.{tag}"
        self._name, self._timm_options = name, wanted
        are_from_hub = weights is not None and (weights == DEFAULT or weights.startswith(HUB))
        network: Any
        if are_from_hub:
            create_on_meta(name, wanted)  # so that a wrong option is not reported as weights that do not fit
            network = _load_pretrained(name, str(weights), self._make)
        else:
            network = self._make()
        _check_maps(network, facts, options)
        chosen = sorted(facts.indices[map_name] for map_name in maps)
        self._indices = network.prune_intermediate_layers(chosen, prune_norm=True)
        self._order = tuple(chosen.index(facts.indices[map_name]) for map_name in maps)
        if facts.leaves_unused:
            make_buffers(network, _find_unused(name, wanted, chosen, facts))
        self.network = network
        if weights is not None and not are_from_hub:
            zoo.plugin.load_encoder_weights(self, read(name, weights), source=weights, of=f"timm:{name}")
        config: dict[str, Any] = network.pretrained_cfg
        self.preprocessing = zoo.Preprocessing.identity(in_channels)
        if weights is not None:
            trained = zoo.Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"]))
            self.preprocessing = trained.for_channels(in_channels)

    def match_weights(self, state: Mapping[str, Tensor]) -> zoo.plugin.MatchedWeights:
        """Match a file's tensors to this encoder's. The file may also contain later stages and a classifier."""
        whole = create_on_meta(self._name, {name: value for name, value in self._timm_options.items() if name != "num_classes"})
        return match(self._name, self._make, self.network, whole.state_dict(), state).within("network.")

    def _make(self, **how: Any) -> nn.Module:
        create = create_on_meta if torch.get_default_device().type == "meta" else create_model
        return create(self._name, self._timm_options, **how)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the requested maps: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        maps = self.network.forward_intermediates(image, indices=self._indices, intermediates_only=True)
        return [maps[position] for position in self._order]


def _timm_keywords(
    facts: Architecture, in_channels: int, image_size: tuple[int, int] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments of `timm.create_model` for this number of input channels, image size and options."""
    wanted: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    if facts.is_dynamic:
        wanted["dynamic_img_size"] = True
    if image_size is not None:
        wanted["img_size"] = image_size
    return {**wanted, **options}


def _load_pretrained(name: str, weights: str, make: Make) -> nn.Module:
    if weights.startswith(HUB):
        return from_hub(name, make, weights.removeprefix(HUB))
    if not index().tags[name.partition(".")[0]]:
        raise zoo.errors.WeightsError(f"timm has no pretrained weights for {name}. Pass weights=None or the path of a file.")
    return from_hub(name, make)


def _check_maps(network: Any, facts: Architecture, options: dict[str, Any]) -> None:
    """Raise an OptionError if options such as `patch_size` change the channels or strides of the maps."""
    if not options:
        return
    usual = create_on_meta(facts.name, {"num_classes": 0})
    limit = options.get("output_stride", 32)

    def maps_of(network: Any) -> list[tuple[int, float]]:
        info = network.feature_info
        return [(entry["num_chs"], entry["reduction"]) for entry in (info.info if hasattr(info, "info") else info)]

    expected = [(channels, min(stride, limit) if "output_stride" in options else stride) for channels, stride in maps_of(usual)]
    if maps_of(network) != expected:
        raise zoo.errors.OptionError(
            f"The options {options!r} change the maps of timm:{facts.name}. Their channels and strides are planned as "
            f"{expected}, but would be {maps_of(network)}. Leave out the options that change them, or register an encoder of "
            "your own."
        )


def _find_unused(name: str, wanted: dict[str, Any], chosen: list[int], facts: Architecture) -> list[str]:
    """Return the names of the parameters that remain after timm's pruning, although none of the chosen maps needs them."""
    height, width = sides(wanted.get("img_size", facts.size))
    image = torch.zeros(1, wanted["in_chans"], height, width, device="meta")
    twin = create_on_meta(name, wanted)
    twin.prune_intermediate_layers(chosen, prune_norm=True)
    try:
        return unused_parameters(twin.eval(), image, chosen)
    except (RuntimeError, NotImplementedError) as cause:
        if "meta" not in str(cause).lower():
            raise
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        real: Any = create_model(name, wanted)
        real.prune_intermediate_layers(chosen, prune_norm=True)
        return unused_parameters(real.eval(), torch.zeros(1, wanted["in_chans"], height, width), chosen)
