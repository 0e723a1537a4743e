"""`benchmarks/gpu.sh` works where there is no accelerator too, and says so."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks/gpu.sh"

CONFIG = """
name: small
encoders: [resnet18]
decoders: [unet-basic]
baseline:
  name: smp.Unet(resnet18)
  factory: segmentation_models_pytorch:Unet
  options: {encoder_name: resnet18, encoder_weights: null}
modes: [inference]
size: [64]
dtype: [float32, bfloat16]
device: cpu
rounds: 20
"""


@pytest.mark.slow
def test_the_script_measures_from_the_checkout_and_a_folder_of_wheels_without_a_network(tmp_path):
    """The environment's own packages stand for the bare machine's; the folder of wheels has nothing to add."""
    config, output, wheels = tmp_path / "small.yaml", tmp_path / "small.csv", tmp_path / "wheels"
    config.write_text(CONFIG, encoding="utf-8")
    wheels.mkdir()
    arguments = ["--wheels", wheels, "--config", config, "--output", output, "--python", sys.executable]
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["pairing"], row["dtype"], row["device"], row["rounds"], row["error"]) for row in rows] == [
        (pairing, dtype, "cpu", "20", "")
        for dtype in ("float32", "bfloat16")
        for pairing in ("smp.Unet(resnet18)", "resnet18 x unet-basic")
    ]


def test_the_script_says_how_to_make_the_folder_of_wheels_when_there_is_none(tmp_path):
    done = subprocess.run([SCRIPT, "--wheels", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "make wheels" in done.stderr


def test_the_script_refuses_an_unknown_argument_and_names_those_it_takes():
    done = subprocess.run([SCRIPT, "--fast", "yes"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--wheels DIR" in done.stderr
