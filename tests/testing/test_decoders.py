"""`check_decoder`: decoders that keep the contract pass every check, and each planted fault is found by the one about it."""

from __future__ import annotations

import re

import pytest
import torch
from planted_decoders import FAULTY, GOOD, Concat, Gated, Sum, register
from torch import nn

import zoo
from zoo.registry.registry import default_registry
from zoo.testing import ConformanceError, check_decoder
from zoo.testing.conformance import checks_of, outcome_of, subject_of

pytestmark = pytest.mark.usefixtures("fresh_registry", "one_thread")


def outcome(id, check):
    return outcome_of(checks_of("decoder")[check], subject_of("decoder", id))


def failures(id, **options):
    with pytest.raises(ConformanceError) as caught:
        check_decoder(id, **options)
    return {failure.check: failure for failure in caught.value.failures}


@pytest.mark.parametrize("decoder", GOOD, ids=lambda decoder: decoder.__name__)
def test_a_decoder_that_keeps_the_contract_passes_every_check(decoder):
    report = check_decoder(register(decoder))
    skipped = ["compiles: only with compile=True"]
    if decoder is not Gated:
        skipped.insert(0, "make_head_gives_classes: the decoder has no make_head, so its head is a 1x1 convolution")
    count = len(checks_of("decoder")) - len(skipped)
    lines = [f"{count} checks ran on local:{decoder.__name__}, all passed; {len(skipped)} skipped:"]
    assert str(report).splitlines() == lines + [f"  {entry}" for entry in skipped]


@pytest.mark.parametrize("name", FAULTY)
def test_a_planted_fault_is_found_by_the_check_that_is_about_it(name):
    found = outcome(register(FAULTY[name]), FAULTY[name].finder)
    assert found.status == "failed"
    assert found.expected
    assert found.found
    assert found.remedy


def test_every_failure_is_listed_in_one_error_with_what_to_do():
    with pytest.raises(ConformanceError, match=r"The decoder local:WrongOutChannelsSum fails 4 of 23 checks") as caught:
        check_decoder(register(FAULTY["WrongOutChannelsSum"]))
    found = {failure.check for failure in caught.value.failures}
    assert {"any_valid_pyramid_works", "out_channels_are_as_declared", "model_gives_logits"} < found
    assert isinstance(caught.value, zoo.ZooError)
    assert isinstance(caught.value, AssertionError)
    message = str(caught.value)
    assert message.count("expected: ") == message.count("what to do: ") == len(found)
    assert "13 channels (its out_channels)" in message


class Pooled(Concat):
    """Pools to one place before a norm. Shapes: as `Concat`."""

    def __init__(self, pyramid, **options):
        super().__init__(pyramid, **options)
        self.context = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(self.out_channels, self.out_channels, 1), nn.BatchNorm2d(self.out_channels)
        )

    def forward(self, features):
        x = super().forward(features)
        return x + self.context(x)


class PooledAndSaysSo(Pooled):
    """Refuses what it cannot learn from. Shapes: as `Concat`."""

    def forward(self, features):
        if self.training and len(features[0]) == 1:
            raise zoo.errors.InputError("Training needs a batch of two images or more.")
        return super().forward(features)


class Squeezing(Pooled):
    """Drops the batch axis with the others of length one. Shapes: as `Concat`."""

    def forward(self, features):
        x = Concat.forward(self, features)
        return x + x.mean(dim=(2, 3), keepdim=True).squeeze()[:, :, None, None]


class Random(Sum):
    """Draws in eval mode. Shapes: as `Sum`."""

    def forward(self, features):
        return super().forward(features) + torch.rand(())


class OwnTensor(Sum):
    """Holds a weight that is no parameter. Shapes: as `Sum`."""

    def __init__(self, pyramid, **options):
        super().__init__(pyramid, **options)
        self.scale = torch.rand(())

    def forward(self, features):
        return super().forward(features) * self.scale


class Editing(Sum):
    """Writes into a map. Shapes: as `Sum`."""

    def forward(self, features):
        return super().forward([features[0].mul_(0.5), *features[1:]])


class Branching(Sum):
    """Looks at a value. Shapes: as `Sum`."""

    def forward(self, features):
        x = super().forward(features)
        return x if x.sum().item() > 0 else 2 * x


class Idle(Sum):
    """Holds a layer that it never calls. Shapes: as `Sum`."""

    def __init__(self, pyramid, **options):
        super().__init__(pyramid, **options)
        self.idle = nn.Conv2d(3, 3, 3)


class Growing(Sum):
    """Has a list as its default, and one layer more at each build. Shapes: as `Sum`."""

    def __init__(self, pyramid, *, widths=(8, 12), extra=[]):  # noqa: B006 - the fault
        super().__init__(pyramid, widths=widths)
        extra.append(0)
        self.shifts = nn.Parameter(torch.zeros(len(extra)))

    def forward(self, features):
        return super().forward(features) + self.shifts.sum()


class Wordless(Sum):
    pass


class BadHead(Sum):
    """Has a head of one class. Shapes: as `Sum`."""

    def make_head(self, classes):
        return nn.Conv2d(self.out_channels, 1, 1)


class Mixing(Sum):
    """Lets one image see another. Shapes: as `Sum`."""

    def forward(self, features):
        x = super().forward(features)
        return x - x.mean(dim=0)


@pytest.mark.parametrize(
    ("decoder", "check"),
    [
        (Squeezing, "training_takes_a_batch_of_one"),
        (Random, "eval_is_deterministic"),
        (OwnTensor, "state_dict_round_trips"),
        (Editing, "inputs_are_not_modified"),
        (Branching, "exports"),
        (Branching, "compiles"),
        (Idle, "no_parameter_is_unused"),
        (Growing, "building_twice_gives_the_same"),
        (Wordless, "documentation_names_source_and_shapes"),
        (BadHead, "make_head_gives_classes"),
        (Mixing, "batch_is_kept"),
    ],
)
def test_what_else_breaks_the_contract_is_found(decoder, check):
    assert outcome(register(decoder), check).status == "failed"


@pytest.mark.parametrize("decoder", [Pooled, PooledAndSaysSo])
def test_a_batch_of_one_may_be_refused_by_a_norm_or_with_words_of_ones_own(decoder):
    """Of a norm the model says which it is, and what to do."""
    assert outcome(register(decoder), "training_takes_a_batch_of_one").status == "passed"


def test_a_class_inside_a_function_cannot_be_pickled_and_is_told_where_to_go():
    class Inner(Sum):
        """As `Sum`. Shapes: as there."""

    found = outcome(register(Inner), "pickles")
    assert "define classes and functions at the top level of an importable file" in found.remedy
    assert "Inner" in found.found


def test_what_a_decoder_raises_is_a_failure_with_its_cause_kept():
    class Raising(Sum):
        def __init__(self, pyramid, **options):
            raise KeyError("no such width")

    found = failures(register(Raising))
    assert "options_are_not_edited" in found
    assert isinstance(found["options_are_not_edited"].cause, KeyError)
    assert "KeyError: 'no such width'" in found["options_are_not_edited"].found


def test_the_declared_out_stride_of_the_spec_is_held_against_the_instances():
    found = outcome(register(Sum, out_stride=1), "out_stride_is_as_declared")
    assert found.expected == "an out_stride of 1, as the spec declares"


def test_a_constant_of_the_spec_that_is_edited_is_found():
    class Editing(Sum):
        """Reverses the spec's list. Shapes: as `Sum`."""

        def __init__(self, pyramid, *, widths):
            super().__init__(pyramid, widths=widths)
            widths.reverse()

    spec = zoo.plugin.DecoderSpec(name="editing", factory=Editing, constants={"widths": [8, 12]})
    default_registry().register("decoder", spec)
    assert "'widths': [12, 8]" in outcome("local:editing", "registry_entry_is_not_edited").found


def test_options_reach_the_decoder_and_a_wrong_one_is_refused():
    report = check_decoder(register(Sum), options={"widths": [6, 4]}, compile=True)
    assert "compiles" in report.ran
    with pytest.raises(zoo.errors.OptionError, match="has no option 'width'"):
        check_decoder("Sum", options={"width": 3})


def test_an_unknown_id_is_said_to_be_unknown():
    with pytest.raises(zoo.errors.UnknownIdError, match="Did you mean"):
        check_decoder("unet-basik")


def test_a_decoder_made_from_a_plain_channel_list_is_checked_like_any_other():
    class FromChannels(nn.Module):
        """Shapes: two maps (N, C_i, h_i, w_i) -> (N, 4, h_0, w_0)."""

        def __init__(self, in_channels):
            super().__init__()
            self.fine, self.coarse = (nn.Conv2d(width, 4, 1) for width in in_channels)

        def forward(self, fine, coarse):
            return self.fine(fine) + nn.functional.interpolate(self.coarse(coarse), size=fine.shape[-2:])

    zoo.register_decoder("listed", zoo.from_channels(FromChannels), source="written for a test", license="MIT")
    assert set(failures("local:listed")) == {"pickles"}  # for its class is defined here


class OwnLogits(Sum):
    """Makes the logits itself. Shapes: maps (N, C_i, h_i, w_i) -> (N, classes, h_0, w_0)."""

    def __init__(self, pyramid, *, classes, widths=(8, 12)):
        super().__init__(pyramid, widths=widths)
        self.classify = nn.Conv2d(widths[1], classes, 1)
        del self.out_channels, self.out_stride

    def forward(self, features):
        """Return the logits."""
        return self.classify(super().forward(features))


class AlwaysThree(OwnLogits):
    __doc__ = OwnLogits.__doc__

    def __init__(self, pyramid, *, classes, widths=(8, 12)):
        super().__init__(pyramid, classes=3, widths=widths)


class TupleInTraining(Sum):
    __doc__ = Sum.__doc__

    def forward(self, features):
        """Return a tuple in train mode."""
        output = super().forward(features)
        return (output, output) if self.training else output


def test_a_decoder_that_makes_the_logits_is_checked_for_each_number_of_classes():
    assert check_decoder(register(OwnLogits, makes_logits=True))
    found = failures(register(AlwaysThree, makes_logits=True))
    assert set(found) == {"make_head_gives_classes"}
    assert "(2, 3, " in found["make_head_gives_classes"].found


class WrongCoarserMaps(Sum):
    __doc__ = Sum.__doc__
    aux_channels = (8,)

    def forward_aux(self, features):
        """Return the map, and a coarser one that is wider than declared."""
        output = self.forward(features)
        return output, [output]


def test_coarser_maps_of_other_widths_than_declared_are_a_finding():
    found = failures(register(WrongCoarserMaps))
    assert set(found) == {"out_channels_are_as_declared"}
    assert found["out_channels_are_as_declared"].found == "maps with [12] and [12] channels"


def test_a_tuple_in_train_mode_is_a_finding():
    assert outcome(register(TupleInTraining), "gradients_are_finite").found == "tuple"


def test_needs_that_nothing_meets_are_a_finding():
    found = failures(register(Sum, needs=zoo.Needs(min_levels=40, distinct_strides=False)))
    assert "40" in found["any_valid_pyramid_works"].found


def test_a_checked_process_is_left_as_it_was():
    class Rude(Sum):
        """As `Sum`. Shapes: as there."""

        def __init__(self, pyramid, **options):
            super().__init__(pyramid, **options)
            torch.manual_seed(3)
            torch.set_default_dtype(torch.float64)

    torch.manual_seed(11)
    before = torch.get_rng_state()
    failures(register(Rude))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is torch.float32


class WiderInTraining(Sum):
    def forward(self, features):
        x = super().forward(features)
        return torch.cat([x, x], dim=1) if self.training else x


class CoarserInTraining(Sum):
    def forward(self, features):
        x = super().forward(features)
        return nn.functional.avg_pool2d(x, 2) if self.training else x


class DetachesInTraining(Sum):
    def forward(self, features):
        return super().forward([x.detach() for x in features] if self.training else features)


class OtherCoarserMapsInTraining(Sum):
    def __init__(self, pyramid):
        super().__init__(pyramid)
        self.aux_channels = (8,)

    def forward_aux(self, features):
        x = self.laterals[-1](features[-1])
        return self(features), [x[:, :4] if self.training else x]


@pytest.mark.parametrize(
    ("decoder", "check", "found"),
    [
        (WiderInTraining, "train_mode_gives_what_eval_mode_gives", r"\(2, 24, "),
        (CoarserInTraining, "train_mode_gives_what_eval_mode_gives", r"\(2, 12, 16, 24\)"),
        (DetachesInTraining, "train_mode_gives_what_eval_mode_gives", "none for map 1, map 2"),
        (OtherCoarserMapsInTraining, "out_channels_are_as_declared", r"\[12\] and \[4\] channels"),
    ],
)
def test_a_fault_that_shows_in_train_mode_alone_is_found(decoder, check, found):
    failure = outcome(register(decoder), check)
    assert failure.status == "failed"
    assert re.search(found, failure.found)
    assert "train mode" in failure.expected
