"""Ids: full and bare, canonical and ambiguous, and what is said of an id that nothing has."""

from __future__ import annotations

import sys

import pytest

import zoo
from zoo.registry.registry import default_registry

DECODER = """
    import zoo

    @zoo.plugin.hookimpl
    def zoo_decoders():
        yield zoo.plugin.DecoderSpec(name="star", factory="{factory}")
"""
IMPOSTOR = """
    import zoo

    @zoo.plugin.hookimpl
    def zoo_encoders():
        maps = tuple(zoo.plugin.FeatureMap(name=f"fake{stride}", channels=1, stride=stride) for stride in (1, 2))
        yield zoo.plugin.EncoderSpec(name="resnet18", factory="impostor:Fake", pyramid=maps)
"""


@pytest.fixture
def two_stars(install):
    for name in ("alpha", "beta"):
        source = DECODER.format(factory=f"{name}:Star")
        install(f"{name}-dist", {"zoo": {name: f"{name}_hooks"}}, {f"{name}_hooks": source})


@pytest.mark.parametrize("id", ["resnet18", "torchvision:resnet18"])
def test_the_projects_own_encoder_has_a_bare_and_a_full_id(id):
    entry = default_registry().encoder(id)
    assert (entry.id, entry.full_id, entry.is_canonical) == ("resnet18", "torchvision:resnet18", True)


def test_a_bare_name_that_one_plugin_has_is_enough():
    assert default_registry().encoder("convnext_tiny").full_id == "timm:convnext_tiny"


def test_a_bare_name_that_two_plugins_have_is_refused_with_both_full_ids(two_stars):
    with pytest.raises(zoo.errors.AmbiguousIdError, match=r"'star'.*alpha:star, beta:star"):
        zoo.negotiate("resnet18", "star")
    assert zoo.negotiate("resnet18", "alpha:star").decoder == "alpha:star"
    assert zoo.negotiate("resnet18", "beta:star").decoder == "beta:star"
    assert zoo.list_decoders("star") == ["alpha:star", "beta:star"]


@pytest.fixture
def impostor(install):
    entry_points = {"zoo": {"aaa": "impostor_hooks"}, "zoo.canonical": {"resnet18": "impostor_hooks"}}
    install("impostor-dist", entry_points, {"impostor_hooks": IMPOSTOR})


def test_a_canonical_name_is_the_projects_own_whoever_else_claims_it(impostor):
    assert zoo.negotiate("resnet18", "unet-basic").maps[0] == "stem"
    assert "impostor_hooks" not in sys.modules


def test_the_one_who_claims_a_canonical_name_is_there_under_its_full_id(impostor):
    assert zoo.list_encoders("resnet18")[:2] == ["aaa:resnet18", "resnet18"]
    plan = zoo.negotiate("aaa:resnet18", "unet-basic")
    assert (plan.encoder, plan.maps) == ("aaa:resnet18", ("fake1", "fake2"))


@pytest.fixture
def clash(install):
    for name in ("alpha", "beta"):
        source = DECODER.format(factory=f"{name}:Star")
        install(f"{name}-dist", {"zoo": {"shared": f"{name}_hooks"}}, {f"{name}_hooks": source})


def test_two_distributions_with_different_specs_under_one_full_id_are_both_refused_and_named(clash):
    with pytest.raises(zoo.errors.PluginError, match=r"(?s)alpha-dist.*'shared:star'.*beta-dist 1\.0"):
        zoo.negotiate("resnet18", "shared:star")
    errors = [str(record.error) for record in default_registry().broken()]
    assert len(errors) == 2
    assert all("alpha-dist" in error and "beta-dist" in error for error in errors)
    with pytest.raises(zoo.errors.UnknownIdError, match=r"2 installed plugin\(s\) could not be loaded"):
        zoo.negotiate("resnet18", "star")


def test_switching_one_side_of_a_clash_off_brings_the_other_back(clash, monkeypatch):
    monkeypatch.setenv("ZOO_DISABLE_PLUGINS", "beta-dist")
    default_registry.cache_clear()
    assert zoo.negotiate("resnet18", "shared:star").decoder == "shared:star"


def test_no_other_distribution_takes_an_id_of_the_projects_own(install):
    source = DECODER.format(factory="foreign:Star").replace('"star"', '"unet-basic"')
    install("foreign-dist", {"zoo": {"unet": "foreign_hooks"}}, {"foreign_hooks": source})
    assert zoo.negotiate("resnet18", "unet:unet-basic").decoder == "unet-basic"
    (broken,) = default_registry().broken()
    assert broken.found.distribution == "foreign-dist"
    assert "'unet:unet-basic'" in str(broken.error)
    assert "still refers to the spec of segmentation-zoo" in str(broken.error)


def test_two_distributions_with_the_very_same_spec_are_no_conflict(install):
    for name in ("alpha", "beta"):
        source = DECODER.format(factory="same:Star")
        install(f"{name}-dist", {"zoo": {"shared": f"{name}_hooks"}}, {f"{name}_hooks": source})
    assert zoo.negotiate("resnet18", "star").decoder == "shared:star"


@pytest.mark.parametrize("id", ["resnt18", "Resnet18", "torchvision:resnet81", "torchvison:resnet18"])
def test_a_misspelt_id_is_answered_with_the_nearest(id):
    with pytest.raises(zoo.errors.UnknownIdError, match=f"'{id}'.*Did you mean [^?]*(resnet18|torchvision)"):
        zoo.build(id, "unet-basic")


def test_a_misspelt_canonical_name_suggests_it_first():
    with pytest.raises(zoo.errors.UnknownIdError, match=r"Did you mean resnet18\b"):
        zoo.build("resnt18", "unet-basic")
    with pytest.raises(zoo.errors.UnknownIdError, match=r"Did you mean unet-basic\b"):
        zoo.build("resnet18", "unet-basc")


def test_an_unknown_plugin_is_answered_with_those_installed():
    with pytest.raises(zoo.errors.UnknownIdError, match=r"No plugin named 'nobody'.*Installed:.*timm, torchvision"):
        zoo.build("nobody:resnet18", "unet-basic")


def test_a_decoder_asked_for_as_an_encoder_is_recognized():
    with pytest.raises(zoo.errors.UnknownIdError, match=r"No encoder named 'unet-basic'.*\('unet-basic' is a decoder\.\)"):
        zoo.build("unet-basic", "unet-basic")
    with pytest.raises(zoo.errors.UnknownIdError, match=r"No decoder named 'resnet18'.*\('resnet18' is an encoder\.\)"):
        zoo.build("resnet18", "resnet18")


@pytest.mark.parametrize("id", [3, None, b"resnet18"])
def test_an_id_that_is_no_string_is_refused(id):
    with pytest.raises(zoo.errors.OptionError, match=r"must be an id \(a string such as 'resnet18' or 'unet-basic'\); found"):
        zoo.channels(id)


@pytest.mark.parametrize("id", ["", ":", "timm:", ":resnet18", "local:resnet18"])
def test_an_incomplete_id_is_unknown(id):
    with pytest.raises(zoo.errors.UnknownIdError):
        zoo.channels(id)


def test_lists_are_sorted_without_repeats_and_bare_for_the_projects_own():
    encoders, decoders = zoo.list_encoders(), zoo.list_decoders()
    assert encoders == sorted(set(encoders))
    assert decoders == sorted(set(decoders))
    assert "resnet18" in encoders
    assert {"unet-basic", "unet-bilinear", "unet-attention"} <= set(decoders)
    assert "timm:resnet18" in encoders


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("unet-*", {"unet-attention", "unet-basic", "unet-bilinear"}),
        ("unet:unet-b*", {"unet-basic", "unet-bilinear"}),
        ("attention", {"unet-attention"}),
        ("unet-[ab]asic", {"unet-basic"}),
        ("no such thing", set()),
    ],
)
def test_a_pattern_is_a_glob_or_a_part_of_a_name_or_full_id(pattern, expected):
    assert set(zoo.list_decoders(pattern)) == expected


def test_every_id_that_is_listed_can_be_asked_for(two_stars):
    registry = default_registry()
    assert all(registry.decoder(id).id == id for id in zoo.list_decoders())
    assert all(registry.encoder(id).id == id for id in zoo.list_encoders("resnet1*"))
