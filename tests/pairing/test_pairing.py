"""The pairing: one frozen fact that build, bench, save and configurations share."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.benchmark import load_config
from zoo.common.configuration import read_mapping
from zoo.pairing.pairing_fields import PairingOptions
from zoo.training.config import load_train_config

ROOT = Path(__file__).parents[2]
FULL = {
    "classes": 19,
    "in_channels": 4,
    "weights": "imagenet",
    "levels": 3,
    "image_size": (225, 301),
    "adapters": "none",
    "size_policy": "resize",
    "encoder_options": {"drop_path_rate": 0.1},
    "decoder_options": {"norm": "group", "channels": (64, 32), "nested": {"a": (1, (2, 3))}},
}


def full(**changes):
    return zoo.Pairing("resnet18", "unet-basic", **{**FULL, **changes})


def test_a_pairing_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        full().classes = 2
    with pytest.raises(TypeError):
        full().decoder_options["norm"] = "none"


def test_pairings_of_equal_options_are_equal_and_hash_alike():
    same = full(decoder_options={"nested": {"a": [1, [2, 3]]}, "channels": [64, 32], "norm": "group"})
    assert same == full()
    assert hash(same) == hash(full())
    assert len({same, full(), full(classes=2)}) == 2


@pytest.mark.parametrize("name", [name for name in FULL if name != "classes"])
def test_pairings_that_differ_in_one_option_are_not_equal(name):
    default = getattr(zoo.Pairing("resnet18", "unet-basic"), name)
    assert full(**{name: default}) != full()


def test_lists_in_options_become_tuples():
    given = {"channels": [64, 32], "nested": {"a": [1, [2]]}}
    options = full(decoder_options=given).decoder_options
    assert options["channels"] == (64, 32)
    assert options["nested"]["a"] == (1, (2,))
    assert given == {"channels": [64, 32], "nested": {"a": [1, [2]]}}


def test_a_list_changed_afterwards_changes_no_pairing():
    channels = [64, 32]
    pairing = full(decoder_options={"channels": channels})
    channels.append(16)
    assert pairing.decoder_options["channels"] == (64, 32)


@pytest.mark.parametrize("pairing", [zoo.Pairing("resnet18", "unet-basic"), full()])
def test_a_pairing_survives_pickle_and_json(pairing):
    assert pickle.loads(pickle.dumps(pairing)) == pairing
    assert zoo.Pairing(**json.loads(json.dumps(pairing.as_dict()))) == pairing


def test_a_pairing_reads_as_its_ids_and_what_differs_from_the_defaults():
    assert str(zoo.Pairing("resnet18", "unet-basic")) == "resnet18 x unet-basic"
    assert str(zoo.Pairing("resnet18", "unet-basic", levels=3, decoder_options={"norm": "group"})) == (
        'resnet18 x unet-basic (levels=3, decoder_options={"norm": "group"})'
    )


def test_options_are_given_by_keyword_only():
    with pytest.raises(TypeError):
        zoo.Pairing("resnet18", "unet-basic", 19)
    with pytest.raises(TypeError):
        zoo.build("resnet18", "unet-basic", 19)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("classes", 0, "classes must be a whole number of at least 1; found 0"),
        ("classes", 1.5, "whole number of at least 1; found 1.5"),
        ("classes", True, "whole number of at least 1; found True"),
        ("in_channels", 0, "in_channels must be a whole number of at least 1; found 0"),
        ("in_channels", "3", "whole number of at least 1; found '3'"),
        ("levels", 0, "levels must be a whole number of at least 1; found 0"),
        ("weights", 3, "weights must be None, a name or a file's path.*found 3"),
        ("image_size", 256, r"a pair \(height, width\).*found 256"),
        ("image_size", (256,), r"a pair \(height, width\).*found \(256,\)"),
        ("image_size", (256, 0), "image_size's width must be a whole number of at least 1; found 0"),
        ("image_size", ("256", 256), "image_size's height must be a whole number of at least 1; found '256'"),
        ("adapters", "all", "adapters must be one of 'auto', 'none'; found 'all'"),
        ("size_policy", "crop", "size_policy must be one of 'auto', 'pad', 'resize', 'error'; found 'crop'"),
        ("encoder_options", ["a"], "mapping of names to values"),
        ("decoder_options", {3: "a"}, "mapping of names to values"),
        ("decoder_options", {"a": {1, 2}}, "plain data"),
        ("decoder_options", {"a": object}, "plain data"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name, value, allowed):
    with pytest.raises(zoo.errors.OptionError, match=allowed):
        full(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("weights", 3, "weights must be None, a name or a file's path"),
        ("image_size", (256, 0), "image_size's width must be a whole number"),
        ("image_size", 256, r"a pair \(height, width\)"),
        ("levels", "2", "levels must be a whole number"),
        ("encoder_options", [], "mapping of names to values"),
    ],
)
def test_build_refuses_a_wrong_value_likewise(name, value, allowed):
    with pytest.raises(zoo.errors.OptionError, match=allowed):
        zoo.build("resnet18", "unet-basic", **{name: value})


@pytest.mark.parametrize("ids", [(None, "unet-basic"), ("resnet18", 3)])
def test_an_id_is_a_string(ids):
    with pytest.raises(zoo.errors.OptionError, match="must be an id \\(a string such as 'resnet18' or 'unet-basic'"):
        zoo.Pairing(*ids)


@pytest.mark.parametrize("asks", [zoo.explain, zoo.negotiate])
def test_an_unknown_option_is_refused_with_the_nearest_known(asks):
    with pytest.raises(zoo.errors.OptionError, match=r"no option 'level'\. Did you mean 'levels'\?"):
        asks("resnet18", "unet-basic", level=3)


letters = st.characters(exclude_categories=["C", "Zl", "Zp"])
text, words = st.text(letters, max_size=8), st.text(letters, min_size=1, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@given(
    st.builds(
        zoo.Pairing,
        words,
        words,
        classes=st.integers(1, 200),
        weights=st.none() | words,
        levels=st.none() | st.integers(1, 5),
        image_size=st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)),
        adapters=st.sampled_from(["auto", "none"]),
        encoder_options=st.dictionaries(words, values, max_size=3),
    )
)
def test_a_pairing_comes_back_from_its_yaml(pairing):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairing.yaml"
        path.write_text(pairing.to_yaml(), encoding="utf-8")
        assert zoo.Pairing.from_yaml(path) == pairing


@pytest.mark.parametrize("text", ["1e3", "-2E-5", "no", "3", "2024-01-01", "~", "1.5e+3"])
def test_text_that_looks_like_something_else_comes_back_as_text(tmp_path, text):
    pairing = zoo.Pairing("resnet18", "unet-basic", weights=text, encoder_options={"norm": text, "rate": 1e-30})
    (tmp_path / "pairing.yaml").write_text(pairing.to_yaml(), encoding="utf-8")
    assert zoo.Pairing.from_yaml(tmp_path / "pairing.yaml") == pairing


def test_yaml_says_what_was_chosen_and_nothing_else():
    assert zoo.Pairing("resnet18", "unet-basic").to_yaml() == "encoder: resnet18\ndecoder: unet-basic\n"
    assert "image_size:\n- 225\n- 301\n" in full().to_yaml()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("encoder: resnet18", "decoder: this key is required"),
        ("encoder: resnet18\ndecoder: unet-basic\nclases: 3", "clases: unknown key. Did you mean 'classes'"),
        ("encoder: resnet18\ndecoder: unet-basic\nclasses: three", "classes: .*found 'three'"),
        ("encoder: resnet18\ndecoder: unet-basic\nlevels: 0", "levels: .*found 0"),
        ("encoder: resnet18\nencoder: resnet34\ndecoder: unet-basic", "is given twice"),
        ("encoder: !!python/object:os.system {}\ndecoder: unet-basic", "not valid YAML"),
        ("? [encoder]\n: resnet18", "a key must be text or a number; found a list or a mapping"),
        (
            "encoder: resnet18\ndecoder: unet-basic\nencoder_options: &own {x: *own}",
            r"\*own is inside the value that it refers to",
        ),
        ("encoder: " + "[" * 5000, "not valid YAML"),
        ("- resnet18", "must contain keys and values"),
        ("encoder: resnet18\ndecoder: unet-basic\nencoder_options: {when: 2024-01-01}", "plain data"),
    ],
)
def test_a_mistake_in_the_yaml_is_told(tmp_path, text, told):
    path = tmp_path / "pairing.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match=told) as error:
        zoo.Pairing.from_yaml(path)
    assert str(path) in str(error.value)


def test_a_whole_pairing_is_built_negotiated_and_explained():
    pairing = zoo.Pairing("timm:test_resnet", "unet-basic", classes=5, levels=3)
    assert zoo.build(pairing).pairing == pairing
    assert zoo.negotiate(pairing) == zoo.negotiate("timm:test_resnet", "unet-basic", classes=5, levels=3)
    assert zoo.explain(pairing) == zoo.explain("timm:test_resnet", "unet-basic", classes=5, levels=3)


def test_arguments_beside_a_whole_pairing_are_refused():
    pairing = zoo.Pairing("timm:test_resnet", "unet-basic")
    with pytest.raises(
        zoo.errors.OptionError, match=r"\(decoder, classes\) were passed with it.*replace\(pairing, decoder=..., classes=...\)"
    ):
        zoo.build(pairing, "unet-bilinear", classes=3)
    with pytest.raises(zoo.errors.OptionError, match="'resnet18' alone is not a pairing: pass a decoder's id"):
        zoo.build("resnet18")


def test_an_option_beside_a_whole_pairing_is_refused_even_at_its_default():
    with pytest.raises(zoo.errors.OptionError, match=r"\(classes\) were passed with it"):
        zoo.build(zoo.Pairing("timm:test_resnet", "unet-basic", classes=5), classes=1)


@pytest.mark.parametrize("function", [zoo.build, zoo.negotiate, zoo.explain, zoo.train])
def test_a_signature_shows_every_option_with_its_type_and_default(function):
    expected = inspect.signature(zoo.Pairing).parameters
    found = inspect.signature(function).parameters
    assert set(PairingOptions.__annotations__) == set(expected) - {"encoder", "decoder"} <= set(found)
    for name in PairingOptions.__annotations__:
        assert (found[name].kind, found[name].default) == (expected[name].kind, expected[name].default)
        assert found[name].annotation


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("levels", 0, "levels must be a whole number of at least 1; found 0."),
        ("aux_levels", -1, "aux_levels must be a whole number of at least 0; found -1."),
        ("image_size", [32], "image_size must be a pair (height, width), such as (256, 320); found [32]."),
        ("adapters", "all", "adapters must be one of 'auto', 'none'; found 'all'."),
        ("size_policy", "crop", "size_policy must be one of 'auto', 'pad', 'resize', 'error'; found 'crop'."),
        ("weights", 3, "weights must be None, a name or a file's path; found 3."),
        (
            "decoder_options",
            ["a"],
            "decoder_options must be a mapping of names to values, such as {'norm': 'group'}; found ['a'].",
        ),
        ("level", 2, "Did you mean 'levels'?"),
    ],
)
def test_a_mistake_is_the_same_error_in_python_and_in_every_yaml_file(tmp_path, option, value, problem):
    pairing = {"encoder": "resnet18", "decoder": "unet-basic", option: value}
    for name, content in {
        "pairing": pairing,
        "bench": {"name": "run", "pairings": [pairing]},
        "baseline": {"name": "run", "pairings": [{"encoder": "a", "decoder": "b"}], "baseline": pairing},
        "train": {**pairing, "data": "texture-mosaic"},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    for refuse in (
        lambda: zoo.build("resnet18", "unet-basic", **{option: value}),
        lambda: zoo.negotiate("resnet18", "unet-basic", **{option: value}),
        lambda: zoo.train("resnet18", "unet-basic", "texture-mosaic", output=tmp_path / "run", **{option: value}),
        lambda: zoo.Pairing.from_yaml(tmp_path / "pairing.yaml"),
        lambda: load_config(tmp_path / "bench.yaml"),
        lambda: load_config(tmp_path / "baseline.yaml"),
        lambda: load_train_config(tmp_path / "train.yaml", {}),
    ):
        with pytest.raises(zoo.errors.ZooError, match=re.escape(problem)):
            refuse()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["pairing", "bench", "train"])
def test_the_schema_takes_what_the_project_takes_and_refuses_an_unknown_key(kind, command_line):
    jsonschema = pytest.importorskip("jsonschema")
    status, told, _ = command_line("schema", kind)
    assert status == 0
    validator = jsonschema.Draft202012Validator(json.loads(told))
    good = {
        "pairing": yaml.safe_load(full().to_yaml()),
        "bench": read_mapping(ROOT / "configs/quality.yaml"),
        "train": {"encoder": "resnet18", "decoder": "unet-basic", "data": {"source": "cells"}, "size": [96, 128], "epochs": 3},
    }[kind]
    validator.validate(good)
    assert not validator.is_valid({**good, "unknown": 1})
