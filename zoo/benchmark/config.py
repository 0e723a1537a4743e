"""A run's YAML file: typed, with errors that name the file, the key and the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from zoo.benchmark.quality import QualityEntry
from zoo.common.configuration import Count, Side, Strict, checked, read_mapping
from zoo.data.data_config import DataEntry
from zoo.errors import ConfigError
from zoo.pairing.pairing import Pairing
from zoo.pairing.pairing_yaml import with_pairing_keys

__all__ = [
    "BenchConfig",
    "ExcludeRule",
    "PairingEntry",
    "ReferenceEntry",
    "RoundsEntry",
    "Side",
    "fit_to_data",
    "load_config",
    "with_quality",
]


@with_pairing_keys(without=("classes", "in_channels"))
class PairingEntry(Strict):
    """One pairing with options of its own; the table shows `name` instead of its ids."""

    name: str = ""

    def pairing(self, **shared: Any) -> Pairing:
        """Return the pairing, with what all pairings of the run share."""
        return Pairing(**self.model_dump(exclude={"name"}), **shared)


class ReferenceEntry(Strict):
    """A model other than a pairing: any callable that returns an `nn.Module`, to compare pairings with."""

    name: str
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    options: dict[str, Any] = {}


class RoundsEntry(Strict):
    """How many rounds a group takes: until every ratio to the baseline is known to within `target`, or `max` are done.

    The intervals are looked at after `min` rounds and after each doubling, and widened so that they hold at all of these
    looks together.
    """

    min: Annotated[int, Field(ge=20)] = 20
    max: Annotated[int, Field(ge=20)] = 160
    target: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @model_validator(mode="after")
    def _is_a_range(self) -> RoundsEntry:
        if self.max < self.min:
            raise ValueError(f"max must be at least min ({self.min}); found {self.max}")
        return self


Mode: TypeAlias = Literal["inference", "training"]
Precision: TypeAlias = Literal["float32", "bfloat16"]
MemoryFormat: TypeAlias = Literal["contiguous", "channels_last"]
Runtime: TypeAlias = Literal[
    "eager",
    "compile",
    "cudagraphs",
    "onnxruntime",
    "openvino",
    "deploy",
    "deploy-compile",
    "deploy-cudagraphs",
    "deploy-onnxruntime",
    "deploy-openvino",
]
TRAINING_RUNTIMES: tuple[Runtime, ...] = ("eager", "compile")
"""The others are for inference alone."""
_T = TypeVar("_T")
OneOrMore: TypeAlias = Annotated[
    list[_T], BeforeValidator(lambda value: value if isinstance(value, list) else [value], json_schema_input_type=Any)
]
Baseline: TypeAlias = Annotated[
    Annotated[PairingEntry, Tag("pairing")] | Annotated[ReferenceEntry, Tag("reference")],
    Discriminator(lambda value: "pairing" if _has_encoder(value) else "reference"),
]
Rounds: TypeAlias = Annotated[
    Annotated[int, Field(ge=20), Tag("count")] | Annotated[RoundsEntry, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | RoundsEntry) else "count"),
]


def _has_encoder(value: Any) -> bool:
    return isinstance(value, PairingEntry) or (isinstance(value, dict) and bool({"encoder", "decoder"} & value.keys()))


class ExcludeRule(Strict):
    """Trials that are left out: those that match every key given here. A list matches any of its values.

    `encoder`, `decoder` and `name` are globs (`"timm:vit_*"`); a rule that names an encoder or decoder never matches a
    reference.
    """

    encoder: OneOrMore[str] = []
    decoder: OneOrMore[str] = []
    name: OneOrMore[str] = []
    mode: OneOrMore[Mode] = []
    batch: OneOrMore[Count] = []
    size: OneOrMore[Side] = []
    dtype: OneOrMore[Precision] = []
    memory_format: OneOrMore[MemoryFormat] = []
    runtime: OneOrMore[Runtime] = []

    @model_validator(mode="after")
    def _says_something(self) -> ExcludeRule:
        if not self.model_fields_set:
            raise ValueError(f"a rule without keys would exclude everything; it takes {', '.join(type(self).model_fields)}")
        return self

    def matches(self, facts: Mapping[str, Any]) -> bool:
        """Return whether the rule leaves out a trial of these facts."""
        return all(_matches(key, getattr(self, key), facts[key]) for key in self.model_fields_set)


def _matches(key: str, values: list[Any], fact: Any) -> bool:
    if key in ("encoder", "decoder", "name"):
        return fact is not None and any(fnmatchcase(fact, pattern) for pattern in values)
    if key == "size":
        values = [side if isinstance(side, tuple) else (side, side) for side in values]
    return fact in values


class BenchConfig(Strict):
    """A benchmark run: every pairing under every combination of modes, batch, size, dtype, memory format and runtime.

    Attributes:
        name: what the run is called in the table's title.
        encoders: ids; each is paired with each of `decoders`.
        decoders: ids.
        pairings: further pairings, with options.
        references: models that are not pairings, measured next to them.
        baseline: what every row is compared with: a pairing or a reference. Without it, the first pairing.
        plugins: Python files that register encoders or decoders, relative to the configuration's folder.
        exclude: rules for the combinations that are left out.
        classes: logits a pixel, for every pairing.
        in_channels: channels of the input.
        modes: "inference", "training" (forward, loss, backward, optimizer).
        batch: images a call.
        size: image side, or [height, width].
        dtype: "float32", or "bfloat16" for autocast.
        memory_format: "contiguous", or "channels_last" for model and input.
        runtime: "eager", "compile" (`torch.compile`), or, for inference alone, "cudagraphs", "onnxruntime", "openvino"; with
            the passes of `zoo.deploy` before it "deploy" (PyTorch), "deploy-compile", "deploy-onnxruntime" and so on.
        input: "image" (a photograph, cropped and resized) or "random".
        device: "auto" (the accelerator where there is one, else the CPU) or a torch device such as "cpu".
        rounds: how often each trial is measured, interleaved with the others: a fixed number, or {min, max, target}.
        quality: what every pairing is trained and tested on, for the table's mIoU: {data, budget, seeds, ...}.
        budget: seconds that the rounds of one group may take, once `min` of them are done.
        group_size: the most pairings that are measured in one interleaved group, beside the baseline and its control.
        warmup: calls before the first round.
        step_limit: seconds after which a build, a first call or a slot counts as hung.
        memory_limit: GiB of resident memory at which a process is ended; by default nine tenths of what is free.
        seed: of the random weights, the random input and the order within each round.
    """

    name: Annotated[str, Field(min_length=1)]
    encoders: list[str] = []
    decoders: list[str] = []
    pairings: list[PairingEntry] = []
    references: list[ReferenceEntry] = []
    baseline: Baseline | None = None
    plugins: list[str] = []
    exclude: list[ExcludeRule] = []
    classes: Count = 1
    in_channels: Count = 3
    modes: Annotated[list[Mode], Field(min_length=1)] = ["inference", "training"]
    batch: Annotated[list[Count], Field(min_length=1)] = [1]
    size: Annotated[list[Side], Field(min_length=1)] = [256]
    dtype: Annotated[list[Precision], Field(min_length=1)] = ["float32"]
    memory_format: Annotated[list[MemoryFormat], Field(min_length=1)] = ["contiguous"]
    runtime: Annotated[list[Runtime], Field(min_length=1)] = ["eager"]
    input: Literal["image", "random"] = "image"
    device: str = "auto"
    rounds: Rounds = RoundsEntry()
    quality: QualityEntry | None = None
    budget: Annotated[float, Field(gt=0)] = 600.0
    group_size: Count = 8
    warmup: Count = 3
    step_limit: Annotated[float, Field(gt=0)] = 300.0
    memory_limit: Annotated[float, Field(gt=0)] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _has_pairings(self) -> BenchConfig:
        if bool(self.encoders) != bool(self.decoders):
            raise ValueError("encoders and decoders go together: every one of the one is paired with every one of the other")
        if not self.encoders and not self.pairings:
            raise ValueError("nothing to measure: give encoders and decoders, or pairings")
        return self

    @model_validator(mode="after")
    def _has_trials(self) -> BenchConfig:
        if "inference" not in self.modes and not set(self.runtime) & set(TRAINING_RUNTIMES):
            able, runtimes = " or ".join(TRAINING_RUNTIMES), ", ".join(self.runtime)
            raise ValueError(f"nothing to measure: models are trained by runtime {able} only; found {runtimes}")
        return self

    def all_pairings(self) -> list[Pairing]:
        """Return the pairings that the run measures, in order, each once."""
        return list(dict.fromkeys(pairing for pairing, _ in self.named_pairings()))

    def named_pairings(self) -> list[tuple[Pairing, str]]:
        """Return the same with the name of each, "" for its ids; a pairing with two names is there twice."""
        shared: dict[str, Any] = {"classes": self.classes, "in_channels": self.in_channels}
        crossed = [(Pairing(encoder, decoder, **shared), "") for encoder in self.encoders for decoder in self.decoders]
        single = [(entry.pairing(**shared), entry.name) for entry in self.pairings]
        return list(dict.fromkeys([*crossed, *single]))


def load_config(path: Path) -> BenchConfig:
    """Read a run's YAML file.

    Raises:
        ConfigError: the file does not exist or is not YAML, or has an unknown key, a wrong type or an impossible value.
    """
    error = f"{path} is not a valid benchmark configuration"
    config = checked(BenchConfig, read_mapping(path), error, _model_at)
    return _make_paths_absolute(config, path.resolve().parent)


def with_quality(config: BenchConfig, changes: Mapping[str, Any]) -> BenchConfig:
    """Return the configuration with these keys of `quality`, beside those that it has.

    Raises:
        ConfigError: neither has `data`, or a value is wrong.
    """
    known = config.quality.model_dump(exclude_defaults=True) if config.quality else {}
    if not known and "data" not in changes:
        raise ConfigError(f"{config.name} measures no quality; --quality TASK or --quality FOLDER names the data for it.")
    quality = checked(QualityEntry, {**known, **changes}, "--quality, --budget and --seeds do not go")
    return config.model_copy(update={"quality": quality})


def fit_to_data(config: BenchConfig, classes: int, in_channels: int, data_name: str) -> BenchConfig:
    """Return the configuration with the classes and channels of the data that it trains on, and a budget for them.

    Raises:
        ConfigError: it has other numbers of its own.
    """
    numbers = {"classes": classes, "in_channels": in_channels}
    for name, number in numbers.items():
        if name in config.model_fields_set and getattr(config, name) != number:
            raise ConfigError(
                f"{config.name}: {name} is {getattr(config, name)}, and {data_name} has {number}. Leave {name} out."
            )
    return config.model_copy(update={**numbers, "quality": config.quality and config.quality.with_budget()})


def _make_paths_absolute(config: BenchConfig, base: Path) -> BenchConfig:
    """Return the configuration with the paths that are relative to its folder made absolute."""
    changed: dict[str, Any] = {"plugins": [str(base / entry) for entry in config.plugins]}
    if config.quality:
        changed["quality"] = config.quality.relative_to(base).model_copy(update={"data": config.quality.data.relative_to(base)})
    return config.model_copy(update=changed)


def _model_at(location: Sequence[str | int]) -> type[Strict]:
    """Return the model of the keys at a location in the file."""
    models: dict[str, type[Strict]] = {
        "pairings": PairingEntry,
        "references": ReferenceEntry,
        "baseline": PairingEntry if "pairing" in location else ReferenceEntry,
        "exclude": ExcludeRule,
        "rounds": RoundsEntry,
        "quality": DataEntry if location[1:2] == ["data"] else QualityEntry,
    }
    return models.get(str(location[0]), BenchConfig) if location else BenchConfig
