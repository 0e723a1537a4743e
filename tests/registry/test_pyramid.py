"""Facts about feature maps, needs and specs: they validate themselves."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest

import zoo

STEM = zoo.plugin.FeatureMap(name="stem", channels=64, stride=2)
DEEP = zoo.plugin.FeatureMap(name="deep", channels=512, stride=32)


def facts(**changes):
    return {"name": "x", "channels": 8, "stride": 4, **changes}


def spec(**changes):
    return {"name": "x", "factory": "package.module:Name", **changes}


@pytest.mark.parametrize(
    ("stride", "level"), [(1, 0), (2, 1), (4, 2), (7, 3), (12, 4), (14, 4), (17.14, 4), (32, 5), (37.4, 5), (40, 5)]
)
def test_the_level_of_a_map_is_that_of_the_nearest_power_of_two(stride, level):
    assert zoo.plugin.FeatureMap(**facts(stride=stride)).level == level


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": 3}, "needs a name; found 3"),
        ({"channels": 0}, "'x': channels.*found 0"),
        ({"channels": 2.5}, "'x': channels.*found 2.5"),
        ({"channels": True}, "'x': channels.*found True"),
        ({"stride": 0.5}, "'x': stride.*found 0.5"),
        ({"stride": math.nan}, "'x': stride.*found nan"),
        ({"stride": math.inf}, "'x': stride.*found inf"),
        ({"stride": "4"}, "'x': stride.*found '4'"),
    ],
)
def test_a_feature_map_says_what_is_wrong_with_it(changes, found):
    with pytest.raises(zoo.errors.RegistrationError, match=found):
        zoo.plugin.FeatureMap(**facts(**changes))


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"finest_stride": 3}, "finest_stride must be a power of two, found 3"),
        ({"finest_stride": None}, "finest_stride must be a power of two, found None"),
        ({"finest_stride": 4, "strides": (2, 8)}, "stride 2 is finer than finest_stride=4"),
        ({"finest_stride": 16, "output_stride": 8}, "output_stride=8 is finer than finest_stride=16"),
        ({"min_levels": 0}, "min_levels.*found 0"),
        ({"min_levels": "2"}, "min_levels.*found '2'"),
        ({"min_levels": 3, "max_levels": 2}, r"max_levels \(2\) is below min_levels \(3\)"),
        ({"max_levels": "4"}, "max_levels"),
        ({"strides": ()}, r"strides.*found \(\)"),
        ({"strides": (8, 4)}, r"strides.*in ascending order.*\(8, 4\)"),
        ({"strides": (4, 4)}, r"strides.*in ascending order.*\(4, 4\)"),
        ({"strides": (4, 6, 8)}, r"powers of two.*\(4, 6, 8\)"),
        ({"strides": (0, 4)}, r"strides.*\(0, 4\)"),
        ({"strides": 4}, "strides.*4"),
        ({"strides": ("4",)}, "strides.*'4'"),
        ({"channels": 0}, "channels.*found 0"),
        ({"channels": 2.5}, "channels.*found 2.5"),
        ({"output_stride": 0}, "output_stride.*found 0"),
        ({"output_stride": "8"}, "output_stride.*'8'"),
    ],
)
def test_needs_say_what_is_wrong_with_them(wrong, found):
    with pytest.raises(zoo.errors.RegistrationError, match=found):
        zoo.Needs(**wrong)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"strides": (True, 2)}, r"strides must be whole numbers.*found \(True, 2\)"),
        ({"strides": (4, 8), "min_levels": 3}, r"min_levels \(3\) is above the number of strides \(4, 8\)"),
        ({"output_stride": 3}, r"output_stride must be a power of two, found 3"),
        ({"one_stride": True, "distinct_strides": True}, r"one_stride uses several maps of one stride.*one of the two"),
    ],
)
def test_needs_that_nobody_can_meet_are_refused(wrong, found):
    with pytest.raises(zoo.errors.RegistrationError, match=found):
        zoo.Needs(**wrong)


def test_several_maps_of_one_named_stride_are_needs_that_can_be_met():
    needs = zoo.Needs(one_stride=True, strides=(16,), min_levels=4)
    assert (needs.min_levels, needs.distinct_strides) == (4, False)
    assert dataclasses.replace(needs, channels=8).distinct_strides is False
    assert zoo.Needs().distinct_strides is True


def test_strides_given_as_a_list_become_a_tuple():
    assert zoo.Needs(strides=[4, 8]) == zoo.Needs(strides=(4, 8))
    assert hash(zoo.Needs(strides=[4, 8])) == hash(zoo.Needs(strides=(4, 8)))


@pytest.mark.parametrize(
    ("pyramid", "found"),
    [
        ((), "'x'.*at least one feature map"),
        ((STEM, "deep"), "'x'.*zoo.plugin.FeatureMap.*found 'deep'"),
        ((STEM, STEM), "'x'.*unique.*stem"),
        ((DEEP, STEM), "'x'.*fine to coarse.*32, 2"),
        (5, "'x'.*5"),
    ],
)
def test_an_encoder_spec_says_what_is_wrong_with_its_pyramid(pyramid, found):
    with pytest.raises(zoo.errors.RegistrationError, match=found):
        zoo.plugin.EncoderSpec(**spec(pyramid=pyramid))


def test_a_pyramid_given_as_a_list_becomes_a_tuple():
    assert zoo.plugin.EncoderSpec(**spec(pyramid=[STEM, DEEP])).pyramid == (STEM, DEEP)


def test_a_pyramid_function_is_checked_when_it_is_asked():
    encoder = zoo.plugin.EncoderSpec(**spec(pyramid=lambda deep=True: (STEM, DEEP) if deep else (DEEP, STEM)))
    assert encoder.pyramid_for({}) == (STEM, DEEP)
    with pytest.raises(zoo.errors.RegistrationError, match="fine to coarse"):
        encoder.pyramid_for({"deep": False})


@pytest.mark.parametrize("name", ["", "two words", "a:b", "-x", None, "é"])
@pytest.mark.parametrize("kind", [zoo.plugin.DecoderSpec, lambda **given: zoo.plugin.EncoderSpec(pyramid=(STEM,), **given)])
def test_a_spec_refuses_a_name_that_cannot_be_an_id(kind, name):
    with pytest.raises(zoo.errors.RegistrationError, match=f"found {name!r}"):
        kind(**spec(name=name))


@pytest.mark.parametrize("factory", ["module", "module:", ":Name", "not a module:Name", 7, None])
def test_a_spec_refuses_a_factory_that_cannot_be_called_or_imported(factory):
    with pytest.raises(zoo.errors.RegistrationError, match=f"'x': a factory must be .*found {factory!r}"):
        zoo.plugin.DecoderSpec(**spec(factory=factory))


def test_a_decoder_spec_refuses_needs_that_are_none():
    with pytest.raises(zoo.errors.RegistrationError, match=r"'x': `needs` must be a zoo\.Needs.*found 4"):
        zoo.plugin.DecoderSpec(**spec(needs=4))
    with pytest.raises(zoo.errors.RegistrationError, match=r"'x'.*must return a zoo\.Needs; found None"):
        zoo.plugin.DecoderSpec(**spec(needs=lambda: None)).needs_for({})


@pytest.mark.parametrize(
    ("mean", "std", "found"),
    [((), (), "one value per channel"), ((0.5,), (0.2, 0.2), "one value per channel"), ((0.5,), (0.0,), "std must be above 0")],
)
def test_preprocessing_says_what_is_wrong_with_it(mean, std, found):
    with pytest.raises(zoo.errors.RegistrationError, match=found):
        zoo.Preprocessing(mean=mean, std=std)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), pytest.param(10**400, id="10**400"), True, "1", None, 1j])
@pytest.mark.parametrize("name", ["mean", "std", "value_range"])
def test_preprocessing_takes_finite_numbers_alone(name, value):
    given = {"mean": (0.5,), "std": (0.5,), "value_range": (0, 1)}
    with pytest.raises(zoo.errors.RegistrationError, match=f"{name} must be finite numbers"):
        zoo.Preprocessing(**given | {name: (*given[name][:-1], value)})


@pytest.mark.parametrize(
    ("mean", "std", "value_range"),
    [
        (0.5, 1e300, (0, 1)),
        (0.5, 1e-320, (0, 1)),
        (0.5, 1e9, (0, 1)),
        (0.5, 1e-14, (0, 1)),
        (1e300, 0.5, (0, 1)),
        (1e9, 0.5, (0, 1)),
        (1e20, 1e20, (0, 1)),
        (0.0, 1.0, (0, 1e-300)),
        (0.0, 1.0, (1e300, 1e301)),
        (0.0, 1.0, (-1e308, 1e308)),
    ],
)
def test_preprocessing_under_which_all_pixels_are_alike_or_none_is_a_number_is_refused(mean, std, value_range):
    with pytest.raises(
        zoo.errors.RegistrationError, match=r"the lowest and the highest pixel of .* become .* in units of value_range"
    ):
        zoo.Preprocessing(mean=(0.5, mean), std=(0.5, std), value_range=value_range)


@pytest.mark.parametrize(
    ("mean", "std", "value_range"),
    [
        (0, 1, (0, 1)),
        (0, 1, (0, 255)),
        (0, 1, (0, 65535)),
        (0, 1, (0, 2**32)),
        (-1024, 500, (-1024, 3071)),
        (103.5, 57.4, (0, 255)),
    ],
)
def test_preprocessing_in_any_units_is_taken(mean, std, value_range):
    assert zoo.Preprocessing(mean=(mean,), std=(std,), value_range=value_range).mean == (mean,)


def test_preprocessing_follows_the_adaptation_of_the_first_convolution():
    color = zoo.Preprocessing(mean=(0.1, 0.2, 0.6), std=(1.0, 2.0, 3.0))
    assert color.for_channels(3) is color
    assert color.for_channels(1).mean == pytest.approx((0.3,))
    assert color.for_channels(1).std == pytest.approx((2.0,))
    assert color.for_channels(4).mean == (0.1, 0.2, 0.6, 0.1)
    assert color.for_channels(4).std == (1.0, 2.0, 3.0, 1.0)
    assert zoo.Preprocessing.identity(2) == zoo.Preprocessing(mean=(0.0, 0.0), std=(1.0, 1.0))


def test_the_statistics_of_imagenet_follow_the_adapted_first_convolution():
    colors = zoo.Preprocessing.imagenet(3)
    assert (colors.mean, colors.std, colors.value_range) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0.0, 1.0))
    assert zoo.Preprocessing.imagenet(1).mean == pytest.approx((sum(colors.mean) / 3,))
    assert zoo.Preprocessing.imagenet(4).std == (*colors.std, colors.std[0])


@pytest.mark.parametrize("fact", [STEM, zoo.Needs(strides=(4, 8), channels=32), zoo.Preprocessing.identity(3)])
def test_facts_are_frozen_and_survive_pickling(fact):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(fact, dataclasses.fields(fact)[0].name, 5)
    assert pickle.loads(pickle.dumps(fact)) == fact


def test_the_fewest_levels_are_by_default_one_or_all_strides_that_are_named():
    assert zoo.Needs().min_levels == 1
    assert zoo.Needs(strides=(4, 8, 16)).min_levels == 3
    assert zoo.Needs(strides=(4, 8, 16), min_levels=2).min_levels == 2
