"""Read what zoo knows about timm's architectures, such as their maps and image sizes.

The file index.json, which is shipped with this plugin, has an entry for each architecture of one version of timm. If another
version is installed, the entries are read from a cache on this machine. If the cache lacks an entry, timm is imported to
measure the architecture.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zoo

__all__ = ["Architecture", "Index", "folder_of", "index", "read_or_ask", "sides"]

SHIPPED = Path(__file__).with_name("index.json")

FORMAT = 1
"""Increase this number when the content or the measurement of entries changes. Older cached entries are then ignored."""

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One architecture, as its entry in index.json describes it.

    Attributes:
        name: timm's name of the architecture.
        pyramid: all maps that the architecture can return.
        indices: a mapping from each map's name to its position in timm's list of the network's maps.
        size: the (height, width) of the images that timm's weights expect.
        sizes: the image sizes that the architecture accepts, with timm's option `dynamic_img_size` if `is_dynamic` is True.
        is_dynamic: whether the architecture is built with `dynamic_img_size`, because it then accepts more sizes.
        output_strides: those of the output strides 8 and 16 with which the architecture can be built, by dilated convolutions.
        leaves_unused: whether timm's pruning leaves parameters in the network that none of the remaining maps needs.
    """

    name: str
    pyramid: zoo.plugin.Pyramid
    indices: Mapping[str, int]
    size: tuple[int, int]
    sizes: zoo.plugin.ImageSizes
    is_dynamic: bool
    output_strides: tuple[int, ...]
    leaves_unused: bool

    @classmethod
    def of(cls, name: str, entry: Entry) -> Architecture:
        """Return the architecture that an entry of index.json describes."""
        maps = [one for several in entry["maps"] for one in _each(*several)]
        facts = {key: entry[key] for key in ("multiple", "minimum", "square", "adapts") if key in entry}
        if "fixed" in entry:
            facts["fixed"] = tuple(entry["fixed"])
        return cls(
            name=name,
            pyramid=tuple(
                zoo.plugin.FeatureMap(name=map_name, channels=width, stride=stride) for map_name, width, stride, _ in maps
            ),
            indices={map_name: index for map_name, _, _, index in maps},
            size=tuple(entry["size"]),
            sizes=zoo.plugin.ImageSizes(**facts),
            is_dynamic=entry.get("dynamic", False),
            output_strides=tuple(entry.get("output_strides", ())),
            leaves_unused=entry.get("unused", False),
        )


class Index:
    """All architectures of one version of timm.

    All names and tags are loaded immediately. The entry of an architecture is loaded when it is first used.

    Args:
        tags: a mapping from each architecture's name to the tags of its pretrained weights.
        entry: a function that receives an architecture's name, and returns the architecture's entry.
    """

    def __init__(self, tags: Mapping[str, tuple[str, ...]], entry: Callable[[str], Entry]) -> None:
        self.tags = tags
        self._entry = entry
        self._known: dict[str, Architecture] = {}

    def __getitem__(self, name: str) -> Architecture:
        if name not in self._known:
            self._known[name] = Architecture.of(name, self._entry(name))
        return self._known[name]

    @classmethod
    def shipped(cls) -> Index:
        """Return the content of index.json, which is shipped with this plugin."""
        entries = _shipped()["architectures"]
        return cls({name: tuple(entry.get("tags", ())) for name, entry in entries.items()}, entries.__getitem__)

    @classmethod
    def probed(cls, folder: Path) -> Index:
        """Return the entries for the installed timm. Those that `folder` lacks are measured with timm and stored in it."""
        listed = read_or_ask(folder / "tags.json", _tags_of_timm)
        return cls(
            {name: tuple(tags) for name, tags in listed.items()},
            lambda name: read_or_ask(folder / f"{name}.json", _describe, name),
        )


@cache
def index() -> Index:
    """Return what is known about the architectures of the installed version of timm."""
    installed = version("timm")
    if installed == _shipped()["timm"]:
        return Index.shipped()
    return Index.probed(folder_of(installed))


def folder_of(installed: str) -> Path:
    """Return the folder in which the entries and licenses for this version of timm are cached."""
    from platformdirs import user_cache_path

    return user_cache_path("segmentation-zoo") / f"timm-{installed}-format-{FORMAT}"


def sides(size: Any) -> tuple[int, int]:
    """Return a value of timm's option `img_size`, which is a number or a pair of numbers, as (height, width).

    Raises:
        zoo.errors.OptionError: the value is neither a whole number of at least 1 nor a pair of such numbers.
    """
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair):
        raise zoo.errors.OptionError(
            f"img_size must be a whole number of at least 1, or a pair (height, width); found {size!r}."
        )
    return pair[0], pair[1]


@cache
def _shipped() -> dict[str, Any]:
    return json.loads(SHIPPED.read_bytes())  # type: ignore[no-any-return]


def _each(name: str, channels: int, stride: float, index: int, count: int = 1) -> list[tuple[str, int, float, int]]:
    """Return the maps that one item of an entry's `maps` describes.

    If the item describes several maps, their names end in consecutive numbers.
    """
    if count == 1:
        return [(name, channels, stride, index)]
    stem, _, number = name.rpartition(".")
    return [(f"{stem}.{int(number) + step}", channels, stride, index + step) for step in range(count)]


def _tags_of_timm() -> dict[str, list[str]]:
    import timm

    tags: dict[str, list[str]] = {name: [] for name in timm.list_models()}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        tags[architecture].append(tag)
    return tags


def _describe(name: str) -> Entry:
    from zoo_timm.describe import describe

    return describe(name)


def read_or_ask(path: Path, ask: Callable[..., Any], *arguments: str) -> Any:
    """Return the content of a cached JSON file; if it cannot be read, call `ask` and try to store the result."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        answer = json.loads(json.dumps(ask(*arguments)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            json.dump(answer, file)
        Path(file.name).replace(path)
    except OSError:
        pass
    return answer
