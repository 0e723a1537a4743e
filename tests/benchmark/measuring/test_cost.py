"""Parameters, FLOPs and the peak of live tensors equal what arithmetic gives, without computing anything."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import zoo
from zoo.benchmark.measuring.clock import time_calls
from zoo.benchmark.measuring.cost import LiveTensors, _cost_on, static_cost
from zoo.benchmark.measuring.steps import build_subject, make_step
from zoo.benchmark.trial import Reference, Trial

META, CPU = torch.device("meta"), torch.device("cpu")
BATCH, SIDE, WIDTH = 2, 64, 32
PIXELS = SIDE * SIDE
FLOAT = 4


def two_layers():
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, padding=1, bias=False),
        nn.Conv2d(WIDTH, 1, 3, padding=1, bias=False),
    )


def many_equal_layers(count):
    return nn.Sequential(*[nn.Conv2d(64, 64, 1, bias=False) for _ in range(count)])


class Asks(nn.Module):
    """Decides by what it computed, which the meta device cannot."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if x.mean().item() < 1e9 else x


class Broken(nn.Module):
    def forward(self, x):
        raise LookupError("no such thing on any device")


class Ending(nn.Conv2d):
    """Calls what is given where it should compute."""

    def __init__(self, end):
        super().__init__(3, 1, 1)
        self.end = end

    def forward(self, x):
        self.end()


def leave():
    sys.exit(0)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("end", "words"), [(leave, "SystemExit: 0"), (interrupt, "KeyboardInterrupt")])
def test_a_model_whose_code_ends_the_program_is_an_error_where_it_is_counted_and_timed(end, words):
    trial = trial_of("Ending", end=end)
    for run in (lambda: static_cost(trial), lambda: time_calls(make_step(build_subject(trial), trial, CPU), 1, CPU)):
        with pytest.raises(zoo.errors.PluginError, match=f"A call of the model was ended by {words}"):
            run()


def trial_of(factory, mode="inference", *, batch=BATCH, side=SIDE, dtype="float32", in_channels=3, classes=1, **options):
    return Trial(
        subject=Reference(name=factory, factory=f"{__name__}:{factory}", options=options),
        mode=mode,
        batch=batch,
        height=side,
        width=side,
        dtype=dtype,
        input="random",
        classes=classes,
        in_channels=in_channels,
    )


def test_parameters_and_flops_are_those_of_one_forward_pass_of_one_image():
    costs = [static_cost(trial_of("two_layers", mode, batch=batch)) for mode in ("inference", "training") for batch in (1, 4)]
    assert {cost.parameters for cost in costs} == {9 * (3 * WIDTH + WIDTH)}
    assert {cost.flops for cost in costs} == {2 * 9 * (3 * WIDTH + WIDTH) * PIXELS}


def test_parameters_of_a_pairing_are_those_of_the_model_that_build_makes():
    pairing = zoo.Pairing("resnet18", "unet-basic", levels=2, classes=5)
    facts = {"batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 5, "in_channels": 3}
    model = zoo.build("resnet18", "unet-basic", levels=2, classes=5)
    cost = static_cost(Trial(subject=pairing, mode="inference", **facts))
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_inference_peak_is_weights_input_and_the_two_activations_that_meet():
    weights = 9 * (3 * WIDTH + WIDTH)
    activations = BATCH * PIXELS * (3 + WIDTH + 1)
    assert static_cost(trial_of("two_layers")).live_bytes == pytest.approx(FLOAT * (weights + activations), rel=0.05)


def test_the_training_peak_adds_gradients_of_activations():
    weights = 9 * (3 * WIDTH + WIDTH)
    image_labels_logits = BATCH * PIXELS * (3 + 1 + 1)
    activation_and_its_gradient = 2 * BATCH * PIXELS * WIDTH
    expected = FLOAT * (4 * weights + image_labels_logits + activation_and_its_gradient)
    assert static_cost(trial_of("two_layers", "training")).live_bytes == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("side", [2, 16])
def test_the_training_peak_includes_adamws_two_states_beside_the_gradients_or_the_activations(side):
    count = 60
    weights = FLOAT * count * 64 * 64
    activations = FLOAT * count * 64 * side * side
    facts = {"batch": 1, "side": side, "in_channels": 64, "classes": 64, "count": count}
    assert static_cost(trial_of("many_equal_layers", "inference", **facts)).live_bytes < 1.25 * weights
    training = static_cost(trial_of("many_equal_layers", "training", **facts)).live_bytes
    assert training == pytest.approx(3 * weights + max(weights, activations), rel=0.05)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_meta_and_cpu_agree(mode):
    trial = trial_of("two_layers", mode)
    assert _cost_on(META, trial) == _cost_on(CPU, trial)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_under_autocast_the_cost_is_that_of_a_real_run_too(mode):
    trial = trial_of("two_layers", mode, dtype="bfloat16")
    assert static_cost(trial) == _cost_on(CPU, trial)


def test_autocast_halves_what_activations_take():
    full, half = (static_cost(trial_of("two_layers", dtype=dtype)).live_bytes for dtype in ("float32", "bfloat16"))
    assert half < 0.7 * full


def test_views_of_one_storage_count_once():
    with LiveTensors(nn.Identity()) as live:
        whole = torch.zeros(1000)
        views = [whole.view(10, 100), whole.view(10, 100).t(), whole[100:], whole.detach()]
    assert len(views) == 4
    assert live.peak == 1000 * FLOAT


def test_what_is_freed_no_longer_counts():
    model = nn.Linear(10, 10, bias=False)
    with LiveTensors(model) as live:
        for _ in range(5):
            torch.zeros(1000)
        both = torch.zeros(500), torch.zeros(700)
    assert live.peak == (100 + 1200) * FLOAT
    assert live.live == (100 + sum(map(len, both))) * FLOAT


def test_a_model_that_meta_cannot_run_is_costed_on_the_cpu():
    trial = trial_of("Asks")
    with pytest.raises(RuntimeError):
        _cost_on(META, trial)
    cost = static_cost(trial)
    assert (cost.parameters, cost.flops) == (28, 2 * 27 * PIXELS)
    assert cost.live_bytes == pytest.approx(FLOAT * BATCH * PIXELS * 4, rel=0.05)


def test_a_model_that_runs_nowhere_raises_its_own_error():
    with pytest.raises(LookupError, match="no such thing"):
        static_cost(trial_of("Broken"))


@pytest.mark.parametrize(
    ("factory", "told"), [("absent_module:f", "absent_module"), ("builtins:absent", "absent"), ("builtins:dict", "nn.Module")]
)
def test_a_reference_that_gives_no_model_is_told_by_its_name(factory, told):
    facts = {"batch": 1, "height": 32, "width": 32, "dtype": "float32", "input": "random", "classes": 1, "in_channels": 3}
    trial = Trial(subject=Reference(name="peer", factory=factory, options={}), mode="inference", **facts)
    with pytest.raises(zoo.errors.ConfigError, match="peer") as caught:
        static_cost(trial)
    assert told in str(caught.value)


def test_a_model_that_reads_a_value_while_it_is_made_is_costed_on_the_cpu(fresh_registry):
    class Reading(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.scale = torch.linspace(0, 1, 3)[1].item()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            return features[0] * self.scale

    zoo.register_decoder("reading", Reading)
    trial = Trial(
        subject=zoo.Pairing("resnet18", "reading", levels=1),
        mode="inference",
        batch=1,
        height=32,
        width=32,
        dtype="float32",
        input="random",
        classes=1,
        in_channels=3,
    )
    assert static_cost(trial).parameters == 64 * 3 * 49 + 2 * 64 + 64 + 1


class OneSize(nn.Module):
    """Made for one image size, and refuses all others."""

    def __init__(self, *, maps, in_channels, weights, image_size=(SIDE, SIDE)):
        super().__init__()
        self.image_size = image_size
        self.conv = nn.Conv2d(in_channels, 8, 4, stride=4)

    def forward(self, image):
        assert tuple(image.shape[-2:]) == self.image_size
        return [self.conv(image)]


@pytest.mark.usefixtures("fresh_registry")
def test_an_encoder_made_for_one_size_is_measured_at_the_trials_and_not_at_its_own():
    sizes = zoo.plugin.ImageSizes(fixed=(SIDE, SIDE), multiple=4, adapts=True)
    maps = (zoo.plugin.FeatureMap(name="patches", channels=8, stride=4),)
    zoo.register_encoder("one-size", OneSize, pyramid=maps, sizes=sizes)

    def cost(side, **options):
        pairing = zoo.Pairing("one-size", "unet-basic", **options)
        return static_cost(replace(trial_of("two_layers", batch=1, side=side), subject=pairing))

    assert cost(2 * SIDE).flops == pytest.approx(4 * cost(SIDE).flops)
    assert cost(2 * SIDE, image_size=(SIDE, SIDE)).flops == cost(SIDE).flops
