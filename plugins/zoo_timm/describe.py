"""Measure a timm architecture's entry in the plugin's index: its maps, image sizes and output strides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo_timm.creating import create_model, create_on_meta
from zoo_timm.pruning import unused_parameters

__all__ = ["Indexing", "describe"]

Size = tuple[int, int]
OUTPUT_STRIDES = (8, 16)
WIDE = (5, 7)
"""A test image has the height WIDE[0] * multiple and the width WIDE[1] * multiple, for the multiple that is tested. The two
numbers differ, and both are odd."""
MORE = (3, 5)
"""A larger test image has the architecture's own height plus MORE[0] * multiple, and its own width plus MORE[1] * multiple."""
INDEXING = tuple(getattr(torch.ops.aten, name) for name in ("index", "index_select", "gather", "take", "embedding"))
"""Operations that read a tensor at positions that another tensor contains. The meta device does not check the positions."""


def describe(architecture: str) -> dict[str, Any]:
    """Measure one architecture, on the meta device if possible, and return its entry in index.json.

    An architecture is measured on the CPU, with tensors that have values, if it does not run on the meta device, or if it uses
    the values of a tensor as indexes into another tensor (for example, relative positions). The meta device would not report an
    index that is out of bounds.

    The entry has these keys. A key other than `maps` and `size` is left out if it has its default value.

    - `maps`: a list with an item [name, channels, stride, position] for each map, where the position is that of the map in
      timm's list of the network's maps. Maps that differ only in consecutive numbers at the end of their names share an item
      [first name, channels, stride, first position, count].
    - `size`: the (height, width) of the images that timm's weights expect.
    - the fields of `zoo.plugin.ImageSizes`.
    - `dynamic`: whether the architecture accepts sizes other than `size` only with timm's option `dynamic_img_size`.
    - `output_strides`: those of the output strides 8 and 16 with which the architecture can be built, by dilated convolutions.
    - `unused`: whether timm's pruning leaves parameters in the network that none of the remaining maps needs.

    Raises:
        zoo.errors.OptionError: the installed timm cannot create or run the architecture, or does not return its maps.
    """
    try:
        return _Trial(architecture).entry()
    except zoo.errors.OptionError:
        raise
    except Exception as cause:
        raise _unusable(architecture, f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}") from cause


class _Trial:
    """Builds one architecture with several options, and runs it at several image sizes, to measure its index entry."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.device = "meta"
        self.network = self.make()
        if not (hasattr(self.network, "forward_intermediates") and hasattr(self.network, "prune_intermediate_layers")):
            raise _unusable(architecture, f"{type(self.network).__name__} does not return its intermediate maps")
        self.own: Size = tuple(self.network.pretrained_cfg["input_size"][1:])
        with Indexing() as indexing:
            self.maps(self.network, self.own)
        if indexing.is_found:
            self.device = "cpu"
            self.network = self.make()
        shapes = [tuple(tensor.shape[2:]) for tensor in self.maps(self.network, self.own)]
        declared = _feature_info(self.network)
        if len(shapes) != len(declared):
            raise _unusable(architecture, f"it declares {len(declared)} maps and returns {len(shapes)}")
        self.info = [
            {**entry, "reduction": _stride(entry["reduction"], self.own[0], shape[0])}
            for entry, shape in zip(declared, shapes, strict=True)
        ]
        coarsest = max(entry["reduction"] for entry in self.info)
        self.multiple = int(coarsest) if coarsest == int(coarsest) else 2 ** math.ceil(math.log2(coarsest))

    def entry(self) -> dict[str, Any]:
        """Return the architecture's entry in index.json."""
        if not self.runs(self.network, self.own):
            raise _unusable(self.architecture, "it returns maps other than those that it declares")
        entry: dict[str, Any] = {"maps": _merge_runs(self.info), "size": self.own, **self.sizes()}
        if self.multiple == 32 and (strides := [stride for stride in OUTPUT_STRIDES if self.dilates(stride)]):
            entry["output_strides"] = strides
        if any(map(self.leaves_unused, _selections(self.info))):
            entry["unused"] = True
        return entry

    def make(self, **options: Any) -> Any:
        """Return the architecture without its classifier, in eval mode."""
        keywords = {"num_classes": 0, **options}
        if self.device == "meta":
            return create_on_meta(self.architecture, keywords).eval()
        with torch.device(self.device):
            return create_model(self.architecture, keywords).eval()

    def try_to_make(self, **options: Any) -> Any | None:
        """Return what `make` returns; None if the architecture refuses the options."""
        try:
            return self.make(**options)
        except Exception:  # noqa: BLE001 - timm's families raise many kinds of exceptions
            return None

    def maps(self, network: Any, size: Size) -> list[Tensor]:
        """Run a network on an image of this size, and return all its maps."""
        image = torch.zeros(1, network.pretrained_cfg["input_size"][0], *size, device=next(network.parameters()).device)
        try:
            with torch.no_grad():
                return network.forward_intermediates(image, intermediates_only=True)  # type: ignore[no-any-return]
        except (RuntimeError, NotImplementedError) as cause:
            if "meta" not in str(cause).lower() or not image.is_meta:
                raise
        return self.maps(_make_real(network), size)

    def runs(self, network: Any | None, size: Size, limit: int = 99) -> bool:
        """Return whether a network, at this image size, returns the maps that timm declares for the architecture.

        In the comparison of the sizes, a declared stride above `limit` counts as `limit`, as in a dilated network. Small
        deviations of the sizes are accepted. If the network is None, the result is False.
        """
        if network is None:
            return False
        try:
            shapes = [tuple(tensor.shape[1:]) for tensor in self.maps(network, size)]
        except Exception:  # noqa: BLE001 - as in `try_to_make`
            return False
        if [shape[0] for shape in shapes] != [entry["num_chs"] for entry in self.info]:
            return False
        if not all(len(shape) == 3 and min(shape) >= 1 for shape in shapes):
            return False
        # An architecture may resize every image to a fixed size (crossvit). Its maps then have the same size for every image.
        return all(
            abs(found - length / min(limit, entry["reduction"])) <= 4 + 0.05 * length / min(limit, entry["reduction"])
            for shape, entry in zip(shapes, self.info, strict=True)
            for found, length in zip(shape[1:], size, strict=True)
        )

    def sizes(self) -> dict[str, Any]:
        """Return the image sizes that the architecture accepts, as a part of its index entry."""
        found: dict[str, Any] = {}
        multiple, network = self.multiple, self.network
        wide = (WIDE[0] * multiple, WIDE[1] * multiple)
        larger = (self.own[0] + MORE[0] * multiple, self.own[1] + MORE[1] * multiple)
        if not self.runs(network, wide) or (self.device != "meta" and not self.runs(network, larger)):
            network = self.try_to_make(dynamic_img_size=True)
            if not self.runs(network, wide):
                return {"fixed": self.own} | self.adaptation()
            found["dynamic"] = True
            made_for = self.try_to_make(dynamic_img_size=True, img_size=wide)
            if self.runs(made_for, wide) and self.runs(made_for, (9 * multiple, 7 * multiple)):
                found["adapts"] = True
        if not self.runs(network, (wide[0] + 1, wide[1] + 3)):
            found["multiple"] = multiple
        minimum = next(count for count in range(1, 99) if self.runs(network, (count * multiple,) * 2)) * multiple
        if minimum > multiple:
            found["minimum"] = minimum
        return found

    def adaptation(self) -> dict[str, Any]:
        """Return the image sizes for which the architecture can be built, as a part of its index entry.

        This is measured only for an architecture that accepts a single size once it is built.
        """
        factors = [1, 2, 4, 3, 7, 14]
        parts = [side // part for part in (4, 2, 1) for side in self.own if side % part == 0]
        candidates = dict.fromkeys([*(factor * self.multiple for factor in factors), *parts])
        for square in (False, True):
            for candidate in candidates:
                trial = (WIDE[0] * candidate, (WIDE[0] if square else WIDE[1]) * candidate)
                if not self.runs(self.try_to_make(img_size=trial), trial):
                    continue
                found: dict[str, Any] = {"adapts": True, "multiple": candidate}
                squares = ((count * candidate,) * 2 for count in range(1, 99))
                minimum = next(size[0] for size in squares if self.runs(self.try_to_make(img_size=size), size))
                if minimum > candidate:
                    found["minimum"] = minimum
                return found | ({"square": True} if square else {})
        return {}

    def dilates(self, output_stride: int) -> bool:
        """Return whether the architecture can be built with dilated convolutions so that no map has a larger stride."""
        dilated = self.try_to_make(output_stride=output_stride)
        if dilated is None or max(entry["reduction"] for entry in _feature_info(dilated)) > output_stride:
            return False
        return self.runs(dilated, (160, 224), limit=output_stride)

    def leaves_unused(self, selection: list[int]) -> bool:
        """Let timm remove the layers that these maps do not need, and return whether unused parameters remain."""
        network = self.make()
        network.prune_intermediate_layers(selection, prune_norm=True)
        image = torch.zeros(1, network.pretrained_cfg["input_size"][0], *self.own, device=self.device)
        try:
            return bool(unused_parameters(network, image, selection))
        except (RuntimeError, NotImplementedError) as cause:
            if "meta" not in str(cause).lower():
                raise
        side = 12 * self.multiple  # gemma4_vit_*_enc pools by a factor of three
        return bool(unused_parameters(_make_real(network), torch.zeros(1, image.shape[1], side, side), selection))


def _unusable(architecture: str, reason: str) -> zoo.errors.OptionError:
    return zoo.errors.OptionError(
        f"timm:{architecture} of the installed timm {timm.__version__} cannot be an encoder: {reason}. Use another encoder, or "
        "update timm: pip install -U timm"
    )


class Indexing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that detects whether any operation in `INDEXING` runs while the mode is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and record whether it is one of those in `INDEXING`."""
        self.is_found = self.is_found or func.overloadpacket in INDEXING
        return func(*args, **(kwargs or {}))


def _make_real(network: Any) -> Any:
    """Move a network whose forward cannot run on the meta device to the CPU, and fill its tensors with zeros."""
    network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.zero_()
    return network


def _feature_info(network: Any) -> list[dict[str, Any]]:
    """Return timm's description of a network's feature maps: dicts with `module`, `num_chs` and `reduction`."""
    info = network.feature_info
    return [dict(entry) for entry in (info.info if hasattr(info, "info") else info)]


def _stride(declared: float, length: int, found: int) -> float:
    """Return the declared stride, or the measured one if the two differ by more than a factor of 2**0.6 (as for tresnet)."""
    measured = length / found
    return declared if abs(math.log2(measured / declared)) < 0.6 else round(measured)


def _selections(info: list[dict[str, Any]]) -> Iterator[list[int]]:
    """Yield two selections of maps, as indexes: the last map of each stride, and the last map of each of the two finest."""
    last = {round(math.log2(entry["reduction"])): index for index, entry in enumerate(info)}
    yield sorted(last.values())
    yield sorted(last.values())[:2]


def _merge_runs(info: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the maps as items of an index entry. Maps whose names differ only in consecutive numbers share an entry."""
    names = [str(entry["module"] or f"map{index}") for index, entry in enumerate(info)]
    if len(set(names)) < len(names):  # coat and crossvit return several maps from one module
        names = [f"{name}.{index}" for index, name in enumerate(names)]
    order = sorted(range(len(info)), key=lambda index: info[index]["reduction"])
    maps: list[list[Any]] = []
    for index in order:
        name, channels, stride = names[index], info[index]["num_chs"], info[index]["reduction"]
        stem, _, number = name.rpartition(".")
        if maps and number.isdigit():
            first, *facts, start, count = [*maps[-1], 1][:5]
            first_stem, _, first_number = first.rpartition(".")
            follows = first_stem == stem and first_number.isdigit() and int(number) == int(first_number) + count
            if follows and facts == [channels, stride] and index == start + count:
                maps[-1] = [first, channels, stride, start, count + 1]
                continue
        maps.append([name, channels, stride, index])
    return maps
