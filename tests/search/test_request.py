"""The parts of a request: limits, globs, licenses, and scores that are known before."""

from __future__ import annotations

import math

import pytest

import zoo
from zoo.registry.licenses import Licenses
from zoo.search.request import SearchRequest, find_entries, is_allowed, parse_limits, read_prior


def test_limits_are_numbers_in_seconds_bytes_parameters_and_flops():
    limits = parse_limits({"max_latency": "50ms", "max_memory": "1GiB", "max_parameters": "30M", "max_flops": None})
    request = SearchRequest(limits=limits, prior={}, minutes=1)
    found = [request.bound(name) for name in ("max_latency", "max_memory", "max_parameters", "max_flops")]
    assert found == [0.05, 2**30, 30e6, math.inf]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_latencies": "1ms"}, "no limit 'max_latencies'. Did you mean 'max_latency'"),
        ({"max_latency": "fast"}, "latency cannot be 'fast'"),
        ({"max_latency": "0ms"}, "a limit must be above 0"),
        ({"max_memory": "-1GiB"}, "a limit must be above 0"),
    ],
)
def test_wrong_limits_are_errors(limits, words):
    with pytest.raises(zoo.errors.OptionError, match=words):
        parse_limits(limits)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": 0}, "--minutes must be a finite number above 0; found 0"),
        ({"minutes": math.nan}, "--minutes must be"),
        ({"seed": -1}, "seed must be a whole number of at least 0; found -1"),
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"weights": "imagenet"}, "--weights must be one of local, download, random; found 'imagenet'"),
    ],
)
def test_wrong_requests_are_errors(changes, words):
    with pytest.raises(zoo.errors.OptionError, match=words):
        SearchRequest(**{"prior": {}, "minutes": 1, **changes})


def test_a_pattern_is_an_id_or_a_glob_or_a_part_of_ids():
    assert find_entries("encoder", ["resnet18"]) == ["resnet18"]
    assert find_entries("decoder", ["unet-b*", "unet-attention"]) == ["unet-basic", "unet-bilinear", "unet-attention"]
    assert "timm:convnext_atto" in find_entries("encoder", ["convnext_at"])
    assert len(find_entries("encoder", [])) > 1000


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(zoo.errors.UnknownIdError, match="No encoder matches 'timm:nothing"):
        find_entries("encoder", ["timm:nothing*"])


@pytest.mark.parametrize(
    ("licenses", "allowed", "has_weights", "expected"),
    [
        (("MIT", "Apache-2.0", ""), "permissive", False, True),
        (("MIT", "", ""), "permissive", False, False),
        (("MIT", "GPL-3.0-only", ""), "permissive", False, False),
        (("MIT", "MIT", "CC-BY-NC-4.0"), "permissive", False, True),
        (("MIT", "MIT", "CC-BY-NC-4.0"), "permissive", True, False),
        (("MIT", "MIT", ""), "permissive", True, False),
        (("MIT", "GPL-3.0-only", ""), "MIT, GPL-3.0-only", False, True),
        (("MIT", "GPL-3.0-only", ""), "permissive,GPL-3.0-only", False, True),
        (("MIT", "", ""), "MIT,", False, False),
        (("", "", ""), "", True, True),
    ],
)
def test_every_license_must_be_allowed_and_stated(licenses, allowed, has_weights, expected):
    encoder, decoder, weights = licenses
    found = Licenses(encoder=encoder, decoder=decoder, weights=weights)
    assert is_allowed(found, allowed, has_weights=has_weights) is expected


def test_a_prior_has_names_of_columns_or_none_and_tags_count_for_the_architecture(tmp_path):
    file = tmp_path / "prior.csv"
    file.write_text(
        "model,top1\nresnet18,69.8\ntimm:resnet50.a1_in1k,80.2\ntimm:resnet50.tv_in1k, 76.1\ntimm:unknown,99\n\n",
        encoding="utf-8",
    )
    assert read_prior(file) == ({"resnet18": 69.8, "timm:resnet50": 80.2}, ["timm:unknown"])
    file.write_text("resnet18,69.8\nresnet50,1\n", encoding="utf-8")  # timm and smp have a resnet50
    assert read_prior(file) == ({"resnet18": 69.8}, ["resnet50"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model,top1\nresnet18\n", r"line 2: expected an encoder's id and a finite number.* found 'resnet18'"),
        ("resnet18,1\ntimm:resnet50,nan\n", "line 2"),
        ("resnet18,1,2\n", "line 1"),
        ("timm:unknown,99\n", "has no score of an installed encoder; found timm:unknown"),
        ("", "found no line with a score"),
    ],
)
def test_a_wrong_prior_is_an_error(tmp_path, text, words):
    (tmp_path / "prior.csv").write_text(text, encoding="utf-8")
    with pytest.raises(zoo.errors.OptionError, match=words):
        read_prior(tmp_path / "prior.csv")


def test_a_prior_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(zoo.errors.OptionError, match="cannot be read"):
        read_prior(tmp_path / "none.csv")
