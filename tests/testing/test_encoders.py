"""`check_encoder`: encoders that keep the contract pass every check, and each planted fault is found by the one about it."""

from __future__ import annotations

import re

import pytest
import torch
from planted_encoders import FAULTY, MadeForOneSize, OfOneSize, Plain, register
from torch import nn

import zoo
from zoo.testing import ConformanceError, check_encoder
from zoo.testing.conformance import checks_of, outcome_of, subject_of

pytestmark = pytest.mark.usefixtures("fresh_registry", "one_thread")


def outcome(id, check):
    return outcome_of(checks_of("encoder")[check], subject_of("encoder", id))


@pytest.mark.parametrize("encoder", [Plain, MadeForOneSize, OfOneSize], ids=lambda encoder: encoder.__name__)
def test_an_encoder_that_keeps_the_contract_passes_every_check(encoder):
    report = check_encoder(register(encoder))
    assert report.failed == ()
    assert set(report.ran) | {entry.check for entry in report.skipped} == set(checks_of("encoder"))
    expected = {"compiles"} | ({"maps_are_nchw"} if encoder is OfOneSize else set())
    assert {entry.check for entry in report.skipped} == expected


@pytest.mark.parametrize(
    "id",
    [
        pytest.param("timm:mobilenetv3_small_050", marks=pytest.mark.slow),
        "timm:test_vit",
        pytest.param("timm:mambaout_femto", marks=pytest.mark.slow),
    ],
)
def test_encoders_of_many_kinds_raise_no_false_alarm(id):
    assert check_encoder(id).failed == ()


@pytest.mark.parametrize("encoder", FAULTY, ids=lambda encoder: encoder.__name__)
def test_a_planted_fault_is_found_by_the_check_that_is_about_it(encoder):
    found = outcome(register(encoder), encoder.finder)
    assert found.status == "failed"
    assert found.expected
    assert found.found
    assert found.remedy


def test_every_failure_is_listed_in_one_error():
    with pytest.raises(ConformanceError, match=r"The encoder local:WrongChannels fails \d+ of 23 checks") as caught:
        check_encoder(register(FAULTY[0]))
    assert "expected: 32 channels on the second axis of coarse" in str(caught.value)
    assert "strides_are_as_declared" not in [failure.check for failure in caught.value.failures]


def test_an_encoder_that_needs_numbers_is_checked_with_real_tensors():
    class Numbers(Plain):
        """Looks at a value while it is built and run. Shapes: (N, C, H, W) -> maps."""

        def forward(self, image):
            return super().forward(image / max(1.0, image.abs().max().item()))

    id = register(Numbers)
    for check in ("channels_are_as_declared", "strides_are_as_declared", "maps_are_nchw", "no_parameter_is_unused"):
        assert outcome(id, check).status == "passed", check


def test_a_size_of_its_own_is_found_by_an_odd_size():
    class Fixed(Plain):
        """Resizes to what it knows. Shapes: (N, C, H, W) -> maps."""

        def forward(self, image):
            return super().forward(nn.functional.interpolate(image, size=(224, 224)))

    id = register(Fixed)
    assert outcome(id, "odd_sizes_work").status == "failed"
    assert outcome(id, "strides_are_as_declared").status == "failed"


def test_an_index_out_of_bounds_is_found_though_meta_tensors_have_none():
    class Positions(Plain):
        """Looks positions up in a table of 64. Shapes: (N, C, H, W) -> maps."""

        def __init__(self, **given):
            super().__init__(**given)
            self.table = nn.Parameter(torch.zeros(64))

        def forward(self, image):
            maps = super().forward(image)
            height, width = maps[-1].shape[-2:]
            positions = self.table[torch.arange(height * width, device=image.device)]
            return [*maps[:-1], maps[-1] + positions.view(height, width)]

    found = outcome(register(Positions), "odd_sizes_work")
    assert found.status == "failed"
    assert "index" in found.found


def test_maps_that_differ_when_they_are_asked_for_alone_are_found():
    class Shared(Plain):
        """Scales by how many maps there are. Shapes: (N, C, H, W) -> maps."""

        def forward(self, image):
            return [x * len(self.maps) for x in super().forward(image)]

    found = outcome(register(Shared), "each_map_comes_alone")
    assert found.status == "failed"
    assert "the same as when all maps are" in found.expected


def test_a_gradient_that_is_not_finite_is_found():
    class Roots(Plain):
        """Takes a root where its slope has no end. Shapes: (N, C, H, W) -> maps."""

        def forward(self, image):
            return [x + (0 * x).abs().sqrt() for x in super().forward(image)]

    assert outcome(register(Roots), "gradients_are_finite").status == "failed"


def test_an_option_edited_in_place_is_found():
    class Editing(Plain):
        """Empties its option. Shapes: (N, C, H, W) -> maps."""

        def __init__(self, *, blocks=(1, 2), **given):
            super().__init__(**given)
            if isinstance(blocks, list):
                blocks.clear()

    option = zoo.plugin.Option(name="blocks", default=(1, 2), summary="nothing")
    assert outcome(register(Editing, options=[option]), "options_are_not_edited").found == "changed in place: blocks"


def test_a_state_that_a_seed_does_not_fix_is_found():
    class Unseeded(Plain):
        """Draws from a generator of its own. Shapes: (N, C, H, W) -> maps."""

        def __init__(self, **given):
            super().__init__(**given)
            self.register_buffer("noise", torch.rand(3, generator=torch.Generator().manual_seed(torch.seed() % 2**31)))

    assert outcome(register(Unseeded), "building_twice_gives_the_same").status == "failed"


class WiderInTraining(Plain):
    def forward(self, image):
        maps = super().forward(image)
        return [torch.cat([x, x], dim=1) for x in maps] if self.training else maps


class LearnsNothing(Plain):
    def forward(self, image):
        with torch.set_grad_enabled(not self.training):
            return super().forward(image)


class TransposesPortraits(Plain):
    def forward(self, image):
        maps = super().forward(image)
        return maps if image.shape[3] >= image.shape[2] else [x.transpose(2, 3) for x in maps]


@pytest.mark.parametrize(
    ("encoder", "check", "found"),
    [
        (WiderInTraining, "train_mode_gives_what_eval_mode_gives", r"^\[\(2, 16, 16, 24\)"),
        (LearnsNothing, "train_mode_gives_what_eval_mode_gives", "none for the parameters"),
        (TransposesPortraits, "odd_sizes_work", "the shape"),
    ],
)
def test_a_fault_that_shows_in_train_mode_or_in_a_portrait_alone_is_found(encoder, check, found):
    failure = outcome(register(encoder), check)
    assert failure.status == "failed"
    assert re.search(found, failure.found)


def test_an_encoder_whose_parameters_are_frozen_learns_nothing_and_passes():
    class Frozen(Plain):
        """Holds what it was given. Shapes: (N, C, H, W) -> maps."""

        def __init__(self, **given):
            super().__init__(**given)
            self.requires_grad_(False)

    assert outcome(register(Frozen), "train_mode_gives_what_eval_mode_gives").status == "passed"
