"""What a run measures, as its YAML file says it: typed, and every mistake named with its file, key and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from zoo.errors import ConfigError, OptionError
from zoo.pairing import Pairing

__all__ = ["BenchConfig", "PairingEntry", "ReferenceEntry", "Side", "load_config"]

Count: TypeAlias = Annotated[int, Field(ge=1)]
Size: TypeAlias = Annotated[
    tuple[Count, Count], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]
"""YAML has lists only; strict pydantic wants a pair to be a tuple."""
Side: TypeAlias = Count | Size


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PairingEntry(_Strict):
    """One pairing with options of its own."""

    encoder: str
    decoder: str
    weights: str | None = None
    levels: Count | None = None
    image_size: Size | None = None
    adapters: Literal["auto", "none"] = "auto"
    size_policy: Literal["auto", "pad", "resize", "error"] = "auto"
    encoder_options: dict[str, Any] = {}
    decoder_options: dict[str, Any] = {}


class ReferenceEntry(_Strict):
    """A model that is no pairing: any callable that returns an `nn.Module`, for pairings to be compared with."""

    name: str
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    options: dict[str, Any] = {}


class BenchConfig(_Strict):
    """A benchmark run.

    Attributes:
        name: what the run is called in the table's title.
        encoders: ids; each is paired with each of `decoders`.
        decoders: ids.
        pairings: further pairings, with options.
        baseline: what every row is compared with.
        plugins: Python files that register encoders or decoders, relative to the configuration's folder.
        classes: logits a pixel, for every pairing.
        in_channels: channels of the input.
        modes: "inference", "training" (forward, loss, backward, optimizer).
        batch: images a call.
        size: image side, or [height, width].
        dtype: "float32", or "bfloat16" for autocast.
        input: "image" (a photograph, cropped and resized) or "random".
        device: "auto" (the accelerator where there is one, else the CPU) or a torch device such as "cpu".
        rounds: how often each trial is measured, interleaved with the others.
        warmup: calls before the first round.
        seed: of the random weights, the random input and the order within each round.
    """

    name: Annotated[str, Field(min_length=1)]
    encoders: list[str] = []
    decoders: list[str] = []
    pairings: list[PairingEntry] = []
    baseline: ReferenceEntry | None = None
    plugins: list[str] = []
    classes: Count = 1
    in_channels: Count = 3
    modes: Annotated[list[Literal["inference", "training"]], Field(min_length=1)] = ["inference", "training"]
    batch: Annotated[list[Count], Field(min_length=1)] = [1]
    size: Annotated[list[Side], Field(min_length=1)] = [256]
    dtype: Annotated[list[Literal["float32", "bfloat16"]], Field(min_length=1)] = ["float32"]
    input: Literal["image", "random"] = "image"
    device: str = "auto"
    rounds: Annotated[int, Field(ge=20)] = 20
    warmup: Count = 3
    seed: int = 0

    @model_validator(mode="after")
    def _has_pairings(self) -> BenchConfig:
        if bool(self.encoders) != bool(self.decoders):
            raise ValueError("encoders and decoders go together: every one of the one is paired with every one of the other")
        if not self.encoders and not self.pairings:
            raise ValueError("nothing to measure: give encoders and decoders, or pairings")
        return self

    def all_pairings(self) -> list[Pairing]:
        """Return the pairings that the run measures, in order, each once."""
        shared: dict[str, Any] = {"classes": self.classes, "in_channels": self.in_channels}
        crossed = [Pairing(encoder, decoder, **shared) for encoder in self.encoders for decoder in self.decoders]
        single = [Pairing(**entry.model_dump(), **shared) for entry in self.pairings]
        return list(dict.fromkeys([*crossed, *single]))


def load_config(path: Path) -> BenchConfig:
    """Read a run's YAML file.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, a wrong type or an impossible value.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration {path}; the project's own are in configs/.") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path} could not be read: {cause}.") from cause
    except yaml.YAMLError as cause:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(cause).split())}.") from cause
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, such as 'name: my-run'; found {type(content).__name__}.")
    try:
        config = BenchConfig.model_validate(content)
    except ValidationError as cause:
        told = dict.fromkeys(_told(error, content) for error in cause.errors())
        raise ConfigError("\n".join([f"{path} is no valid benchmark configuration:", *told])) from None
    try:
        config.all_pairings()
    except OptionError as cause:
        raise ConfigError(f"{path} is no valid benchmark configuration:\n  pairings: {cause}") from cause
    base = path.resolve().parent
    return config.model_copy(update={"plugins": [str(base / entry) for entry in config.plugins]})


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the standard loader silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} stands twice, the second time in line {key.start_mark.line + 1}")
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _told(error: Any, content: dict[Any, Any]) -> str:
    """Return one line for a person: the key, what was found and what is allowed."""
    location = list(error["loc"])
    if location[:1] == ["size"] and len(location) > 1:
        found = content["size"][location[1]]
        return f"  size.{location[1]}: a side is a whole number of at least 1, or a pair [height, width]; found {found!r}."
    key = ".".join(str(part) for part in location) or "the file"
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"  {key}: unknown key.{hint} Allowed: {', '.join(allowed)}."
    if error["type"] == "missing":
        return f"  {key}: this key is required."
    message = str(error["msg"]).removeprefix("Value error, ")
    given = "" if error["type"] == "value_error" else f"; found {error['input']!r}"
    return f"  {key}: {message}{given}."


def _allowed_keys(location: Sequence[str | int]) -> list[str]:
    models: dict[str, type[_Strict]] = {"pairings": PairingEntry, "baseline": ReferenceEntry}
    model = models.get(str(location[0]), BenchConfig) if location else BenchConfig
    return list(model.model_fields)
