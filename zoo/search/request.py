"""What a search looks for: the encoders and decoders to consider, the limits, and what ranks the pairings. Torch-free."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from zoo.benchmark.analysis.conditions import Condition
from zoo.benchmark.analysis.recommend import parse_limit
from zoo.benchmark.quality import QualityEntry
from zoo.common.format_names import format_names
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError, UnknownIdError, ZooError
from zoo.registry.licenses import Licenses
from zoo.registry.registry import default_registry

__all__ = ["LIMITS", "SearchRequest", "Weights", "find_entries", "is_allowed", "parse_limits", "read_prior", "value_of"]

Weights: TypeAlias = Literal["local", "download", "random"]
"""The weights from which a search trains encoders: pretrained weights that are on this machine, pretrained weights that may be
downloaded, or random ones."""

LIMITS = ("max_latency", "max_memory", "max_parameters", "max_flops")
"""The limits of a search, which have the same names and values as those of `zoo recommend`."""

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-4.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "Unlicense",
        "Zlib",
    }
)
"""SPDX ids of licenses that allow any use, also commercial use, and do not extend to the user's own code or models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What a search looks for.

    Attributes:
        encoders: ids or globs; empty for all encoders.
        decoders: ids or globs; empty for all decoders.
        height: the height of the images in pixels.
        width: the width of the images in pixels.
        batch: the number of images per call.
        classes: the number of classes.
        in_channels: the number of channels of the images.
        limits: what each pairing must meet.
        license: "permissive", or SPDX ids separated by commas; "" for all licenses.
        weights: the weights from which the encoders are trained.
        prior: a score for some encoders, such as their accuracy on ImageNet. Larger is better.
        quality: the data, and how models are trained; None to search by cost alone.
        minutes: how long the search may take.
        seed: the seed of the first training of each candidate.
        device: the name of a torch device, or "auto".
        plugins: the paths of the files that register encoders or decoders.
    """

    encoders: tuple[str, ...] = ()
    decoders: tuple[str, ...] = ()
    height: int = 256
    width: int = 256
    batch: int = 1
    classes: int = 1
    in_channels: int = 3
    limits: tuple[Condition, ...] = ()
    license: str = ""
    weights: Weights = "local"
    prior: Mapping[str, float]
    quality: QualityEntry | None = None
    minutes: float
    seed: int = 0
    device: str = "auto"
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("height", "width", "batch", "classes", "in_channels"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise OptionError(f"{name} must be a whole number of at least 1; found {getattr(self, name)!r}.")
        if type(self.seed) is not int or self.seed < 0:
            raise OptionError(f"seed must be a whole number of at least 0; found {self.seed!r}.")
        if isinstance(self.minutes, bool) or not isinstance(self.minutes, int | float) or not 0 < self.minutes < math.inf:
            raise OptionError(f"--minutes must be a finite number above 0; found {self.minutes!r}.")
        if self.weights not in get_args(Weights):
            raise OptionError(f"--weights must be one of {', '.join(get_args(Weights))}; found {self.weights!r}.")

    def bound(self, limit: str) -> float:
        """Return the value of a limit, in seconds, bytes, parameters or FLOPs; infinity if the limit is not set.

        A limit of the throughput is a limit of the latency, too.
        """
        options: dict[str, Callable[[Condition], float]] = {f"--{limit.replace('_', '-')}": value_of}
        if limit == "max_latency":
            options["--min-throughput"] = lambda each: self.batch / value_of(each) if value_of(each) > 0 else math.inf
        return min((options[each.option](each) for each in self.limits if each.option in options), default=math.inf)

    def prior_of(self, encoder: str) -> float | None:
        """Return the prior score of an encoder's id, or of the id without a tag of pretrained weights; None if it has none."""
        if encoder in self.prior:
            return self.prior[encoder]
        architecture = _architecture(encoder) if self.prior else None
        return None if architecture is None else self.prior.get(architecture)

    def score(self, encoder: str, flops: float) -> float:
        """Return what ranks a pairing before it is trained: the prior score of its encoder or, without a prior, the FLOPs.

        With a prior, encoders without a score come last.
        """
        if not self.prior:
            return flops
        score = self.prior_of(encoder)
        return -math.inf if score is None else score

    @property
    def score_name(self) -> str:
        """What ranks the pairings that meet the limits."""
        return "mIoU" if self.quality else "prior score" if self.prior else "FLOPs"

    def as_dict(self) -> dict[str, Any]:
        """Return the request without its time as a JSON-serializable dictionary."""
        names = (
            "encoders",
            "decoders",
            "height",
            "width",
            "batch",
            "classes",
            "in_channels",
            "license",
            "weights",
            "seed",
            "plugins",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "limits": [str(limit) for limit in self.limits],
            "prior": dict(self.prior),
            "quality": self.quality.model_dump(mode="json") if self.quality else None,
        }


def value_of(limit: Condition) -> float:
    """Return the number that a limit compares with, in seconds, bytes, parameters or FLOPs."""
    return limit.fact.parse(limit.value, limit.option)[0]


def parse_limits(limits: Mapping[str, str | None]) -> tuple[Condition, ...]:
    """Return the limits that are set as conditions on rows.

    Raises:
        OptionError: a limit is unknown, or its value is not valid or not above 0.
    """
    for name in limits:
        if name not in LIMITS:
            raise OptionError(f"There is no limit {name!r}.{did_you_mean(name, LIMITS)} Choose from: {', '.join(LIMITS)}.")
    parsed = tuple(parse_limit(name, value) for name, value in limits.items() if value is not None)
    for limit in parsed:
        if value_of(limit) <= 0:
            raise OptionError(f"{limit}: a limit must be above 0.")
    return parsed


def find_entries(kind: Literal["encoder", "decoder"], patterns: Sequence[str]) -> list[str]:
    """Return the ids that match any of the patterns, in the registry's order; all ids without patterns.

    Raises:
        UnknownIdError: a pattern matches no id.
    """
    registry = default_registry()
    if not patterns:
        return registry.ids(kind)
    found: dict[str, None] = {}
    for pattern in patterns:
        try:
            ids = [registry.encoder(pattern).id if kind == "encoder" else registry.decoder(pattern).id]
        except UnknownIdError:  # not an id, so a glob or a part of ids
            ids = [entry.id for entry in registry.matching(kind, pattern)]
        found |= dict.fromkeys(ids)
    return list(found)


def is_allowed(licenses: Licenses, allowed: str, *, has_weights: bool) -> bool:
    """Return whether all licenses of a pairing are among the allowed ones. A license that is not stated is not.

    Args:
        licenses: the licenses of the encoder's and the decoder's code, and of the weights.
        allowed: SPDX ids separated by commas, one of which may be "permissive"; "" to allow every license.
        has_weights: whether the pairing uses pretrained weights, so that their license counts.
    """
    if not allowed:
        return True
    words = {each.strip() for each in allowed.split(",")}
    ids = (words | PERMISSIVE if "permissive" in words else words) - {""}
    return {licenses.encoder, licenses.decoder, *([licenses.weights] if has_weights else [])} <= ids


def read_prior(path: Path) -> tuple[dict[str, float], list[str]]:
    """Read scores of encoders from a CSV file with two columns: an encoder's id, and its score.

    The first line may contain names of the columns. A score of an id with a tag ("timm:resnet50.a1_in1k") counts for the
    architecture. If an architecture has several scores, the highest counts.

    Returns:
        A mapping from ids of encoders to their scores; and the ids in the file that name no encoder or several ones.

    Raises:
        OptionError: the file cannot be read, a line is not valid, or no id is known.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise OptionError(f"--prior {path} cannot be read: {cause}.") from cause
    scores: dict[str, float] = {}
    unknown: list[str] = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        score = _number(cells[1]) if len(cells) == 2 else None
        if score is None and number == 1 and len(cells) == 2 and _architecture(cells[0]) is None:
            continue  # the names of the columns
        if score is None:
            raise OptionError(
                f"--prior {path}, line {number}: expected an encoder's id and a finite number, such as resnet18,69.8; found "
                f"{','.join(line)!r:.80}."
            )
        if (encoder := _architecture(cells[0])) is None:
            unknown.append(cells[0])
        else:
            scores[encoder] = max(score, scores.get(encoder, -math.inf))
    if not scores:
        found = f"found {format_names(unknown, 5)}" if unknown else "found no line with a score"
        raise OptionError(f"--prior {path} has no score of an installed encoder; {found}. `zoo list encoders` shows the ids.")
    return scores, unknown


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _architecture(id: str) -> str | None:
    """Return the id of the encoder, without the tag of pretrained weights; None if no encoder or several have this id."""
    try:
        entry = default_registry().encoder(id)
        tag = entry.spec.constants.get("tag")
        return default_registry().encoder(id.removesuffix(f".{tag}")).id if tag else entry.id
    except ZooError:
        return None
