"""`aux_levels`: heads on the decoder's coarser maps, in training alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import zoo

DECODERS = ("unet-basic", "unet-bilinear", "unet-attention", "smp:unet")
SIZE = (40, 56)


def built(decoder="unet-basic", **options):
    torch.manual_seed(0)
    return zoo.build("timm:test_resnet", decoder, classes=3, **options)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_model_in_training_gives_the_coarser_maps_logits_too(decoder):
    model = built(decoder, aux_levels=2)
    found = model(torch.rand(2, 3, *SIZE))
    assert isinstance(found, tuple)
    assert [tuple(logits.shape) for logits in found] == [(2, 3, *SIZE)] * 3
    sum(logits.square().mean() for logits in found).backward()
    assert all(parameter.grad is not None for parameter in model.aux_heads.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
def test_in_eval_mode_it_is_the_model_without_them(decoder):
    with_aux, without = built(decoder, aux_levels=3).eval(), built(decoder).eval()
    state = {key: value for key, value in with_aux.state_dict().items() if not key.startswith("aux_heads.")}
    without.load_state_dict(state)
    image = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(with_aux(image), without(image))


@pytest.mark.parametrize("decoder", DECODERS)
def test_each_head_sees_the_map_of_its_own_step(decoder):
    """The finest of the coarser maps has half the image's resolution, the next a quarter."""
    model = built(decoder, aux_levels=2)
    seen = []
    for head in model.aux_heads:
        head.register_forward_hook(lambda head, inputs, output: seen.append(tuple(inputs[0].shape[1:])))
    model(torch.rand(2, 3, 64, 96))
    assert seen == [(width, 32 // 2**step, 48 // 2**step) for step, width in enumerate(model.decoder.aux_channels[:2])]


def test_a_model_with_them_is_copied_and_pickled():
    model = built(aux_levels=1).eval()
    image = torch.rand(1, 3, *SIZE)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            assert torch.equal(twin(image), model(image))


@pytest.mark.parametrize(
    ("decoder", "levels", "told"),
    [
        ("unet-basic", 9, "aux_levels=9: the decoder unet-basic has 4 coarser maps here"),
        ("smp:fpn", 1, "the decoder smp:fpn has no coarser maps"),
        ("unet-basic", -1, "aux_levels must be a whole number of at least 0"),
        ("unet-basic", True, "aux_levels must be a whole number of at least 0"),
    ],
)
def test_what_cannot_be_is_told(decoder, levels, told):
    with pytest.raises(zoo.errors.OptionError, match=told):
        built(decoder, aux_levels=levels)


class Coarser(nn.Module):
    """Gives the last map as it is, and the one before it as a coarser one."""

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride

    def forward(self, features):
        return features[-1]


class WithAux(Coarser):
    def forward_aux(self, features):
        return features[-1], [features[-2]]


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize(
    ("base", "widths", "told"),
    [
        (WithAux, 16, "must be a tuple of integers of at least 1; found 16"),
        (WithAux, (16.0,), r"found \(16\.0,\)\. Set it to the channels"),
        (WithAux, (True,), r"found \(True,\)"),
        (WithAux, (0,), r"found \(0,\)"),
        (Coarser, (16,), r"has `aux_channels` but no `forward_aux\(features\)`. Add this method"),
    ],
)
def test_a_decoder_whose_declaration_of_coarser_maps_is_wrong_is_refused_when_it_is_built(base, widths, told):
    zoo.register_decoder("wrong", type("Wrong", (base,), {"aux_channels": widths}))
    with pytest.raises(zoo.errors.PluginError, match=f"decoder local:wrong .*{told}"):
        built("local:wrong", aux_levels=1)
