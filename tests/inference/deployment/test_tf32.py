"""A program that rounds as a GPU does, to TF32, is accepted: emulated here, so that it needs no GPU."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from zoo.inference.reference import ROUNDINGS

TF32 = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[3] / "benchmarks/tf32.py")))

pytestmark = pytest.mark.usefixtures("one_thread")


def test_numbers_are_rounded_to_the_nearest_of_ten_bits_ties_to_even():
    given = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-11 + 2**-20), 0.0])
    expected = torch.tensor([1.0, 1 + 2**-10, 1.0, 1 + 2**-9, -(1 + 2**-10), 0.0])
    assert torch.equal(TF32.rounded_to_tf32(given), expected)


@pytest.mark.parametrize(
    ("decoder", "size"),
    [("unet-bilinear", (65, 97)), ("unet-basic", (65, 97)), ("smp:unet", (127, 64))],
)
def test_in_tf32_the_passes_keep_the_error_within_what_deploy_accepts(decoder, size):
    """Twice the model's own error was accepted once: the folded `unet-bilinear` has 2.2 times as much at 65x97."""
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    own, program = TF32.emulated_errors(TF32.trained_like("resnet18", decoder), image)
    assert 1e-4 < own < 1e-2
    assert program < ROUNDINGS * own
