"""Write the model card of a saved model: how to load the model, what it consists of, and its metrics.

The card is Markdown that the hub can parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from zoo.checkpoints.saved_model import SavedModel
from zoo.common.grid import to_markdown
from zoo.common.rendering import escaped, table_row
from zoo.data.value_ranges import format_range
from zoo.pairing.plan_parts import plan_parts

if TYPE_CHECKING:
    from zoo.model.model import SegmentationModel

__all__ = ["CARD", "card_of"]

CARD = "README.md"


def card_of(model: SegmentationModel, facts: SavedModel) -> str:
    """Return the text of the model card."""
    pairing = model.pairing
    head = {
        "library_name": "segmentation-zoo",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "segmentation-zoo", pairing.encoder, pairing.decoder],
    }
    size = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {escaped(pairing.encoder)} x {escaped(pairing.decoder)}",
        "",
        "A model for image segmentation (`pip install segmentation-zoo`).",
        "",
        "```python",
        "import zoo",
        "",
        'model = zoo.load("PATH OF THIS FOLDER")   # or zoo.load("hf-hub:OWNER/NAME") for a repository',
        f"# images (N, {pairing.in_channels}, H, W) of any H and W -> logits (N, {pairing.classes}, H, W)",
        "```",
        "",
        *_facts(facts, size),
    ]
    if facts.metrics:
        lines += ["", "## Metrics", "", *(f"- {escaped(name)}: {value}" for name, value in _flat(facts.metrics))]
    return "\n".join([*lines, "", "## The plan", "", to_markdown(plan_parts(model.plan, pairing))])


def _facts(facts: SavedModel, size: int) -> Iterator[str]:
    pairing = facts.make_pairing()
    preprocessing = facts.preprocessing
    low, high = preprocessing.value_range
    yield table_row(["", ""])
    yield table_row(["---", "---"])
    for name, value in (
        ("built by", f"`{pairing.encoder}`, `{pairing.decoder}`"),
        ("parameters", f"{size:,}"),
        ("classes", ", ".join(map(escaped, facts.classes)) or str(pairing.classes)),
        ("pixels", _describe_pixels(facts)),
        ("images", f"values from {low:g} to {high:g}, minus the mean {preprocessing.mean}, divided by {preprocessing.std}"),
        ("pretrained encoder", escaped(pairing.weights or "no")),
        (
            "licenses",
            f"encoder {facts.licenses['encoder'] or 'not stated'}, decoder {facts.licenses['decoder'] or 'not stated'}",
        ),
        ("license of the pretrained weights", facts.licenses["weights"] or "-"),
        ("plugins", ", ".join(f"{id} ({each.distribution} {each.version})" for id, each in facts.plugins.items()) or "-"),
        ("made with", ", ".join(f"{name} {version}" for name, version in facts.versions.items())),
    ):
        yield table_row([name, value])


def _describe_pixels(facts: SavedModel) -> str:
    if facts.value_range is None:
        return "integers scaled to 0 to 1 by the range of their dtype; floating-point values in 0 to 1"
    return f"scaled to 0 to 1 from {format_range(tuple((low, high) for low, high in facts.value_range))}"


def _flat(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
