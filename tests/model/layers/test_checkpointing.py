"""`gradient_checkpointing`: the same gradients and the same statistics, and less memory."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import zoo

CHOICES = ("encoder", "decoder", "both")


def step(model, image, *, seed=0):
    """Take a training step without an optimizer; return the loss and the bytes that were kept for the gradient."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(seed)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(image).square().mean()
    loss.backward()
    return loss.item(), sum(kept.values())


def pair(choice, decoder="unet-basic", **options):
    torch.manual_seed(0)
    plain = zoo.build("timm:test_resnet", decoder, **options)
    checkpointed = zoo.build("timm:test_resnet", decoder, gradient_checkpointing=choice, **options)
    checkpointed.load_state_dict(copy.deepcopy(plain.state_dict()))
    return plain, checkpointed


@pytest.mark.parametrize(
    ("decoder", "choice"), [*product(("unet-basic", "unet-attention", "smp:unet"), CHOICES), ("smp:fpn", "encoder")]
)
def test_gradients_and_statistics_are_the_same_and_less_is_kept(choice, decoder):
    options = {"decoder_options": {"dropout": 0.2}} if decoder == "unet-basic" else {}
    plain, checkpointed = pair(choice, decoder, **options)
    image = torch.rand(2, 3, 64, 64)
    loss, kept = step(plain, image)
    other_loss, other_kept = step(checkpointed, image)
    assert other_loss == pytest.approx(loss, rel=1e-6)
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, one), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)  # the norms' statistics, and how many batches they saw
    assert other_kept < kept


def test_it_works_with_auxiliary_logits():
    model = pair("both", aux_levels=1)[1]
    sum(logits.mean() for logits in model(torch.rand(2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("choice", CHOICES)
def test_in_eval_mode_and_without_a_gradient_it_changes_nothing(choice):
    plain, checkpointed = (model.eval() for model in pair(choice))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(image), checkpointed(image))
        checkpointed.train()(image)


def test_a_decoder_without_steps_is_told():
    with pytest.raises(zoo.errors.OptionError, match="the decoder smp:fpn does not support it"):
        zoo.build("timm:test_resnet", "smp:fpn", gradient_checkpointing="both")


def test_another_choice_is_refused():
    with pytest.raises(
        zoo.errors.OptionError, match="gradient_checkpointing must be one of None, 'encoder', 'decoder', 'both'; found 'all'"
    ):
        zoo.build("timm:test_resnet", "unet-basic", gradient_checkpointing="all")
