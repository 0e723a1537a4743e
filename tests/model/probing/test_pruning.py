"""`unused_parameters`: what no output's gradient reaches, told from autograd's graph alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.model.probing.pruning import unused_parameters

pytestmark = pytest.mark.usefixtures("one_thread")


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = (nn.Linear(2, 2) for _ in range(3))
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        x = self.first(x)
        return self.left(x), self.scale * self.right(x)


def test_parameters_that_no_output_depends_on_are_named_in_the_modules_order():
    module = Branches()
    left, right = module(torch.rand(1, 2))
    assert unused_parameters(module, [left]) == ["scale", "right.weight", "right.bias"]
    assert unused_parameters(module, [left, right]) == []


def test_a_gradient_that_happens_to_be_zero_still_counts():
    module = Branches()
    assert unused_parameters(module, [0 * module(torch.zeros(1, 2))[1]]) == ["left.weight", "left.bias"]


def test_an_output_without_a_gradient_reaches_nothing():
    module = Branches()
    with torch.no_grad():
        outputs = module(torch.rand(1, 2))
    assert unused_parameters(module, outputs) == [name for name, _ in module.named_parameters()]


def test_a_parameter_that_is_an_output_is_used():
    module = Branches()
    assert "scale" not in unused_parameters(module, [module.scale])


def test_nothing_is_computed_and_meta_tensors_will_do():
    with torch.device("meta"):
        module = Branches()
        outputs = module(torch.rand(1, 2))
    assert unused_parameters(module, outputs[:1]) == ["scale", "right.weight", "right.bias"]
    assert all(parameter.grad is None for parameter in module.parameters())


def test_stand_ins_of_a_functional_call_are_told_by_their_names():
    module = Branches()
    stand_ins = {name: parameter.detach().requires_grad_() for name, parameter in module.named_parameters()}
    left, _ = torch.func.functional_call(module, stand_ins, (torch.rand(1, 2),))
    assert unused_parameters(module, [left], stand_ins) == ["scale", "right.weight", "right.bias"]
