"""Build a model, train it for two steps and run a tiny benchmark: the minimum that every platform must support.

pip install ".[train,tasks]"
python scripts/smoke.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import zoo

CONFIG = """
name: smoke
encoders: [resnet18]
decoders: [unet-basic, unet-bilinear]
size: [64]
rounds: 20
"""


def main() -> None:
    """Build a model, train it and run a benchmark. Each step raises an exception if it fails."""
    model = zoo.build("resnet18", "unet-basic", classes=3)
    logits = model(torch.rand(1, 3, 65, 97))
    assert logits.shape == (1, 3, 65, 97), logits.shape
    with tempfile.TemporaryDirectory() as folder:
        result = zoo.train(
            "resnet18", "unet-basic", "texture-mosaic", output=Path(folder, "run"), steps=2, batch=2, size=64, validations=1
        )
        assert zoo.load(result.checkpoint).pairing.decoder == "unet-basic"
        config = Path(folder, "smoke.yaml")
        config.write_text(CONFIG, encoding="utf-8")
        table = zoo.bench(config, store=Path(folder, "zoo.sqlite"))
        failed = [row.name for row in table.rows if row.error]
        assert not failed, failed
    print(f"It works: {len(table.rows)} rows were measured.")


if __name__ == "__main__":
    main()  # not when this file is imported, since spawned processes import it
