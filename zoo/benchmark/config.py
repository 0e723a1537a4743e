"""Read and validate the YAML configuration of a benchmark run. Errors name the file, the key and the remedy."""

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
from zoo.training.entries import entry_at

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
    """A pairing with its own options. If `name` is set, the table shows this name instead of the ids."""

    name: str = ""

    def pairing(self, **shared: Any) -> Pairing:
        """Return the pairing. `shared` are the options that all pairings of the run have in common, such as `classes`."""
        return Pairing(**self.model_dump(exclude={"name"}), **shared)


class ReferenceEntry(Strict):
    """A model that is not a pairing, but is measured for comparison.

    Attributes:
        name: the name in the table.
        factory: the callable that returns the model (an `nn.Module`), written as `module:name`.
        options: the keyword arguments of the factory.
    """

    name: str
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    options: dict[str, Any] = {}


class RoundsEntry(Strict):
    """How many rounds measure a group of trials: at least `min`, and at most `max`.

    The rounds end early as soon as the ratio of every trial to the baseline is known precisely enough: half the width of its
    confidence interval, divided by the ratio, is at most `target`. The intervals are checked after `min` rounds, whenever the
    number of rounds has doubled, and after `max` rounds. They are widened, so that the probability that a trial's interval
    misses the true ratio in any check is at most 5 %.

    Attributes:
        min: the smallest number of rounds.
        max: the largest number of rounds.
        target: the half width of the confidence interval at which the rounds end, as a share of the ratio.
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
"""The runtimes that can train a model. All other runtimes are for inference only."""
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
    """A rule that excludes each trial that matches all keys of the rule. If a key has a list of values, one of them must match.

    `encoder`, `decoder` and `name` are globs (`"timm:vit_*"`). A rule with the key `encoder` or `decoder` never excludes
    reference models, since they have neither.

    Attributes:
        encoder: the id of the encoder, or a glob.
        decoder: the id of the decoder, or a glob.
        name: the name of the row in the table, or a glob.
        mode: the mode, inference or training.
        batch: the number of images in a batch.
        size: the side length of square images, or [height, width], in pixels.
        dtype: the dtype.
        memory_format: the memory format.
        runtime: the runtime.
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
            raise ValueError(f"a rule without keys would exclude all trials; set some of {', '.join(type(self).model_fields)}")
        return self

    def matches(self, facts: Mapping[str, Any]) -> bool:
        """Return whether the rule excludes a trial. `facts` is a mapping from each key to the trial's value."""
        return all(_matches(key, getattr(self, key), facts[key]) for key in self.model_fields_set)


def _matches(key: str, values: list[Any], fact: Any) -> bool:
    if key in ("encoder", "decoder", "name"):
        return fact is not None and any(fnmatchcase(fact, pattern) for pattern in values)
    if key == "size":
        values = [side if isinstance(side, tuple) else (side, side) for side in values]
    return fact in values


class BenchConfig(Strict):
    """A benchmark run. It measures every pairing in every combination of mode, batch, size, dtype, memory format and runtime.

    Attributes:
        name: the name of the run, shown in the title of the table.
        encoders: ids of encoders; each encoder is paired with each of `decoders`.
        decoders: ids of decoders.
        pairings: more pairings, with their own options.
        references: models that are not pairings, for comparison.
        baseline: the pairing or reference that every row is compared with; by default the first pairing.
        plugins: Python files that register encoders or decoders, relative to the folder of the YAML file.
        exclude: rules for trials to leave out.
        classes: the number of logits per pixel, for every pairing.
        in_channels: the number of channels of the input.
        modes: "inference" (forward), "training" (forward, loss, backward, optimizer step), or both.
        batch: images per call.
        size: the side length of a square image, or [height, width], in pixels.
        dtype: "float32", or "bfloat16" to run in autocast.
        memory_format: "contiguous", or "channels_last" for model and input.
        runtime: "eager" or "compile" (`torch.compile`); for inference also "cudagraphs", "onnxruntime" and "openvino". The
            prefix "deploy" means that the passes of `zoo.deploy` first make the model faster: "deploy" (run in eager mode),
            "deploy-compile", "deploy-onnxruntime" and so on. Runtimes with this prefix are for inference only.
        input: "image" (a photograph, cropped and resized) or "random".
        device: "auto" (an accelerator if there is one, otherwise the CPU) or the name of a torch device such as "cpu".
        rounds: how many rounds measure a group of trials; a round measures each trial of the group once, in random order.
            Either a fixed number, or {min, max, target} as in `RoundsEntry`.
        quality: how every model is trained and tested for the table's mIoU: {data, budget, seeds, ...} as in
            `QualityEntry`; None to train nothing.
        budget: the seconds after which the rounds of a group end, provided that the `min` of `rounds` is reached. If `rounds`
            is a fixed number, the time is not limited.
        group_size: the largest number of trials in a group, not counting the baseline and its copy. One process measures the
            trials of a group together.
        warmup: the number of calls of each trial before the first round.
        step_limit: the seconds after which a build, a first call or one measurement counts as hung.
        memory_limit: the resident memory in GiB that a measuring process may use before it is killed; by default nine tenths
            of the memory that is free when its work starts.
        seed: the seed of the random weights, the random input and the order within each round.
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
            raise ValueError("encoders and decoders go together: each encoder is paired with each decoder, so give both lists")
        if not self.encoders and not self.pairings:
            raise ValueError("nothing to measure: give encoders and decoders, or pairings")
        return self

    @model_validator(mode="after")
    def _has_trials(self) -> BenchConfig:
        if "inference" not in self.modes and not set(self.runtime) & set(TRAINING_RUNTIMES):
            able, runtimes = " and ".join(TRAINING_RUNTIMES), ", ".join(self.runtime)
            raise ValueError(
                f"nothing to measure: mode 'training' runs only with the runtimes {able}; found runtime {runtimes}"
            )
        return self

    def all_pairings(self) -> list[Pairing]:
        """Return the pairings of the run in order, without duplicates."""
        return list(dict.fromkeys(pairing for pairing, _ in self.named_pairings()))

    def named_pairings(self) -> list[tuple[Pairing, str]]:
        """Return (pairing, name) for each pairing of the run. A pairing with two names occurs twice; `name` may be ""."""
        shared: dict[str, Any] = {"classes": self.classes, "in_channels": self.in_channels}
        crossed = [(Pairing(encoder, decoder, **shared), "") for encoder in self.encoders for decoder in self.decoders]
        single = [(entry.pairing(**shared), entry.name) for entry in self.pairings]
        return list(dict.fromkeys([*crossed, *single]))


def load_config(path: Path) -> BenchConfig:
    """Read and validate the YAML file of a run.

    Raises:
        ConfigError: the file does not exist or is not YAML, or has an unknown key, a wrong type or an impossible value.
    """
    error = f"{path} is not a valid benchmark configuration"
    config = checked(BenchConfig, read_mapping(path), error, _model_at)
    return _make_paths_absolute(config, path.resolve().parent)


def with_quality(config: BenchConfig, changes: Mapping[str, Any]) -> BenchConfig:
    """Return the configuration with some keys of `quality` added or replaced.

    Raises:
        ConfigError: neither the configuration nor `changes` contains `data`, or a value is invalid.
    """
    known = config.quality.model_dump(exclude_defaults=True) if config.quality else {}
    if not known and "data" not in changes:
        raise ConfigError(
            f"{config.name} has no data to train on. Pass --quality TASK, or --quality FOLDER for your own images and masks."
        )
    quality = checked(QualityEntry, {**known, **changes}, "The values of --quality, --budget and --seeds are not valid")
    return config.model_copy(update={"quality": quality})


def fit_to_data(config: BenchConfig, classes: int, in_channels: int, data_name: str) -> BenchConfig:
    """Return the configuration with the numbers of classes and channels of the training data.

    If the `quality` of the configuration has no budget, it gets the default budget for the data.

    Raises:
        ConfigError: the configuration sets a different number of classes or channels.
    """
    numbers = {"classes": classes, "in_channels": in_channels}
    for name, number in numbers.items():
        if name in config.model_fields_set and getattr(config, name) != number:
            raise ConfigError(
                f"{config.name}: {name} is {getattr(config, name)}, but {data_name} has {number}. Leave {name} out; the number "
                "is taken from the data."
            )
    return config.model_copy(update={**numbers, "quality": config.quality and config.quality.with_budget()})


def _make_paths_absolute(config: BenchConfig, base: Path) -> BenchConfig:
    """Return the configuration with absolute paths. Relative paths start from `base`, the folder of the YAML file."""
    changed: dict[str, Any] = {"plugins": [str(base / entry) for entry in config.plugins]}
    if config.quality:
        changed["quality"] = config.quality.relative_to(base).model_copy(update={"data": config.quality.data.relative_to(base)})
    return config.model_copy(update=changed)


def _model_at(location: Sequence[str | int]) -> type[Strict]:
    """Return the pydantic class that declares the keys at this location of the YAML file."""
    models: dict[str, type[Strict]] = {
        "pairings": PairingEntry,
        "references": ReferenceEntry,
        "baseline": PairingEntry if "pairing" in location else ReferenceEntry,
        "exclude": ExcludeRule,
        "rounds": RoundsEntry,
        "quality": DataEntry if location[1:2] == ["data"] else entry_at(location[1:], QualityEntry),
    }
    return models.get(str(location[0]), BenchConfig) if location else BenchConfig
