"""docs/guides/from-table-to-service.md, run as it stands: from the table to a mask that a service hands out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/guides/from-table-to-service.md"


def make_roads(folder):
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(20):
        image = random.integers(0, 120, (64, 80, 3), dtype=np.uint8)
        mask = np.zeros((64, 80), np.uint8)
        left = int(random.integers(10, 50))
        image[:, left : left + 16] += 100
        mask[:, left : left + 16] = 1
        Image.fromarray(image).save(folder / f"images/{index:02}.png")
        Image.fromarray(mask).save(folder / f"masks/{index:02}.png")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="the page serves an image by curl")
def test_the_way_from_a_table_to_a_service_is_walked_as_the_page_says(tmp_path):
    make_roads(tmp_path / "roads")
    shutil.copy(ROOT / "docs/examples/serve.py", tmp_path)
    surroundings = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    blocks = re.findall(r"^```(yaml|sh|python)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["yaml", "sh", "sh", "python", "sh", "sh", "sh"]
    told = ""
    for language, text in blocks:
        if language == "yaml":
            (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
            continue
        command = ["bash", "-mec", text] if language == "sh" else [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=surroundings, timeout=600, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        told += done.stdout
    assert all(part in told for part in ("timm:mobilenetv3_small_050 x unet-basic", "Nothing is wrong", "20 masks in masks"))
    with Image.open(tmp_path / "mask.png") as served, Image.open(tmp_path / "masks/00.png") as predicted:
        assert np.array_equal(served, predicted)
        assert set(np.unique(served)) == {0, 1}
    assert (tmp_path / "roads.onnx").stat().st_size > 10_000
