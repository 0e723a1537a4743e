"""A run's YAML file: what it may say, and that every mistake is told with the file, the key and what is allowed."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

import zoo
from zoo.benchmark import load_config
from zoo.benchmark.config import fit_to_data, with_quality
from zoo.benchmark.quality import BUDGETS, OTHER_BUDGET
from zoo.benchmark.trial import make_trials
from zoo.data.tasks.tasks import TASKS

VALID = {"name": "small", "encoders": "[resnet18]", "decoders": "[unet-basic]"}
TOP_LEVEL_KEYS = ["name", "encoders", "pairings", "baseline", "modes", "batch", "size", "dtype", "input", "device", "rounds"]


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def valid_with(**lines):
    return "".join(f"{key}: {value}\n" for key, value in (VALID | lines).items())


def refusal(path):
    with pytest.raises(zoo.errors.ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_the_projects_own_configuration_names_the_three_unets_and_the_baseline(request):
    config = load_config(request.config.rootpath / "configs/resnet18.yaml")
    assert [str(pairing) for pairing in config.all_pairings()] == [
        "resnet18 x unet-basic",
        "resnet18 x unet-bilinear",
        "resnet18 x unet-attention",
    ]
    assert config.baseline.factory == "segmentation_models_pytorch:Unet"
    assert (config.modes, config.input) == (["inference", "training"], "image")
    assert config.rounds >= 20


def test_every_encoder_is_paired_with_every_decoder_and_further_pairings_follow_each_once(written):
    config = load_config(
        written(
            """
            name: crossed
            encoders: [e1, e2]
            decoders: [d1, d2]
            classes: 7
            pairings:
              - {encoder: e1, decoder: d1}
              - {encoder: e1, decoder: d1, levels: 2, decoder_options: {channels: [8, 4]}}
            """
        )
    )
    crossed = [zoo.Pairing(encoder, decoder, classes=7) for encoder in ("e1", "e2") for decoder in ("d1", "d2")]
    single = zoo.Pairing("e1", "d1", classes=7, levels=2, decoder_options={"channels": (8, 4)})
    assert config.all_pairings() == [*crossed, single]


@pytest.mark.parametrize(
    ("text", "key", "hint", "allowed"),
    [
        (valid_with(round="30"), "round", "'rounds'", TOP_LEVEL_KEYS),
        (valid_with(encodrs="[a]"), "encodrs", "'encoders'", TOP_LEVEL_KEYS),
        ("name: a\npairings: [{encoder: e, decoder: d, level: 2}]\n", "pairings.0.level", "'levels'", ["levels", "weights"]),
        (valid_with(baseline="{name: b, factory: 'm:f', option: {}}"), "baseline.option", "'options'", ["name", "factory"]),
    ],
)
def test_an_unknown_key_is_told_with_its_place_what_was_meant_and_what_is_allowed(written, text, key, hint, allowed):
    path = written(text)
    message = refusal(path)
    assert str(path) in message
    assert f"{key}: unknown key" in message
    assert f"Did you mean {hint}" in message
    assert all(name in message.partition("Allowed:")[2] for name in allowed)


@pytest.mark.parametrize("key", ["interval", "integer", "tuples", "constrained_by"])
def test_an_unknown_key_may_be_called_anything(written, key):
    assert f"{key}: unknown key" in refusal(written(valid_with(**{key: "1"})))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"rounds": "many"}, ("rounds", "integer", "'many'")),
        ({"rounds": "true"}, ("rounds", "integer", "True")),
        ({"rounds": "19"}, ("rounds", "20", "19")),
        ({"encoders": "resnet18"}, ("encoders", "list", "'resnet18'")),
        ({"batch": "4"}, ("batch", "list", "4")),
        ({"batch": "[0]"}, ("batch.0", "greater than or equal to 1", "0")),
        ({"batch": "[]"}, ("batch", "at least 1")),
        ({"size": "256"}, ("size", "list", "256")),
        ({"size": "[big]"}, ("size.0", "whole number", "[height, width]", "'big'")),
        ({"size": "[[256]]"}, ("size.0", "[height, width]", "[256]")),
        ({"size": "[[256, 0]]"}, ("size.0", "whole number from 1 to 131,072", "[256, 0]")),
        ({"modes": "[infer]"}, ("modes.0", "'inference' or 'training'", "'infer'")),
        ({"dtype": "[float16]"}, ("dtype.0", "'float32' or 'bfloat16'", "'float16'")),
        ({"input": "video"}, ("input", "'image' or 'random'", "'video'")),
        ({"classes": "0"}, ("classes", "greater than or equal to 1", "0")),
        ({"name": "''"}, ("name", "at least 1 character")),
        ({"baseline": "{name: b, factory: no_colon}"}, ("baseline.factory", "'no_colon'")),
        ({"baseline": "{name: b}"}, ("baseline.factory", "required")),
        ({"pairings": "[{encoder: e, decoder: d, adapters: some}]"}, ("pairings.0.adapters", "'auto', 'none'", "'some'")),
        ({"pairings": "[resnet18]"}, ("pairings.0", "'resnet18'")),
        ({"5": "1"}, ("5", "string")),
    ],
)
def test_a_wrong_value_is_told_with_its_key_what_was_found_and_what_is_allowed(written, lines, told):
    path = written(valid_with(**lines))
    message = refusal(path)
    assert all(part in message for part in (str(path), *told)), message


def test_all_mistakes_are_told_at_once(written):
    message = refusal(written(valid_with(rounds="many", inputs="image", batch="[0]")))
    assert all(key in message for key in ("rounds:", "inputs:", "batch.0:"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("encoders: [e]\ndecoders: [d]\n", "name: this key is required"),
        ("name: a\nencoders: [e]\n", "encoders and decoders go together"),
        ("name: a\ndecoders: [d]\n", "encoders and decoders go together"),
        ("name: a\n", "nothing to measure"),
        ("", "must contain keys and values"),
        ("- name\n", "must contain keys and values"),
        ("name: [a\n", "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("name: a\nrounds: 20\nname: b\n", "'name' is given twice, the second time in line 3"),
        ("name: a\npairings:\n  - {encoder: e, decoder: d, encoder: f}\n", "'encoder' is given twice"),
    ],
)
def test_a_file_that_is_no_run_is_told_with_what_it_lacks(written, text, told):
    path = written(text)
    message = refusal(path)
    assert str(path) in message
    assert told in message


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        assert str(path) in refusal(path)


def test_an_options_value_that_is_no_plain_data_is_told_with_the_file(written):
    path = written("name: a\npairings: [{encoder: e, decoder: d, decoder_options: {channels: !!set {a, b}}}]\n")
    assert str(path) in refusal(path)


def test_a_size_is_a_side_or_height_and_width(written):
    assert load_config(written(valid_with(size="[64, [48, 96]]"))).size == [64, (48, 96)]


def test_plugin_files_are_relative_to_the_configurations_folder(written, tmp_path, monkeypatch):
    path = written(valid_with(plugins="[mine.py, sub/other.py]"))
    monkeypatch.chdir(tmp_path.parent)
    relative = path.relative_to(tmp_path.parent)
    assert load_config(relative).plugins == [str(tmp_path / "mine.py"), str(tmp_path / "sub/other.py")]


def test_merge_keys_work_and_a_pairing_may_tell_its_image_size(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: merged\npairings:\n  - &one {encoder: resnet18, decoder: unet-basic, image_size: [64, 96]}\n"
        "  - {<<: *one, decoder: unet-bilinear}\n"
    )
    first, second = load_config(path).all_pairings()
    assert (first.image_size, second.image_size) == ((64, 96), (64, 96))
    assert second.decoder == "unet-bilinear"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"rounds": "{min: 10}"}, ("rounds.min", "20", "10")),
        ({"rounds": "{min: 40, max: 20}"}, ("rounds", "max", "40", "20")),
        ({"rounds": "{most: 40}"}, ("rounds.most", "unknown key", "min, max, target")),
        ({"exclude": "[{}]"}, ("exclude.0", "would exclude all trials", "encoder")),
        ({"exclude": "[{mode: infer}]"}, ("exclude.0.mode", "'inference' or 'training'", "'infer'")),
        ({"exclude": "[{decoders: a}]"}, ("exclude.0.decoders", "'decoder'")),
        ({"memory_format": "[nhwc]"}, ("memory_format.0", "'channels_last'", "'nhwc'")),
        ({"runtime": "[onnx]"}, ("runtime.0", "'compile'", "'onnx'")),
        ({"baseline": "{encoder: resnet18}"}, ("baseline.decoder", "required")),
        ({"baseline": "{encoder: a, decoder: b, level: 2}"}, ("baseline.level", "'levels'")),
        ({"budget": "0"}, ("budget", "greater than 0", "0")),
        ({"memory_limit": "-1"}, ("memory_limit", "greater than 0", "-1")),
    ],
)
def test_what_is_wrong_within_a_range_a_rule_or_a_baseline_is_told_with_its_place(written, lines, told):
    message = refusal(written(valid_with(**lines)))
    assert all(part in message for part in told), message


def test_models_are_trained_by_pytorch_alone(written):
    text = valid_with(modes="[inference, training]", runtime="[deploy, onnxruntime, compile, eager]")
    found = {(trial.mode, trial.runtime) for trial in trials(written, text)}
    assert found == {("training", "compile"), ("training", "eager")} | {
        ("inference", runtime) for runtime in ("deploy", "onnxruntime", "compile", "eager")
    }
    message = refusal(written(valid_with(modes="[training]", runtime="[deploy]")))
    assert all(part in message for part in ("nothing to measure", "eager and compile", "deploy"))


def trials(written, text):
    return make_trials(load_config(written(text)))


def test_every_dimension_is_crossed_and_every_block_has_its_baseline_first_and_a_control_last(written):
    dimensions = "batch: [1, 2]\nmodes: [inference]\nmemory_format: [contiguous, channels_last]\nruntime: [eager, compile]\n"
    found = trials(written, valid_with(baseline="{name: b, factory: 'm:f'}") + dimensions)
    assert len(found) == len({trial.key for trial in found}) == 2 * (2 * 4 + 1)
    for block in (found[:9], found[9:]):
        assert [trial.role for trial in block] == ["baseline", *["candidate"] * 7, "control"]
        assert (block[0].memory_format, block[0].runtime) == ("contiguous", "eager")


def test_without_a_baseline_the_first_pairing_of_each_block_is_one(written):
    found = trials(written, valid_with(decoders="[unet-basic, sum]", exclude="[{decoder: unet-basic, mode: training}]"))
    assert [(trial.mode, trial.subject.decoder, trial.role) for trial in found] == [
        ("inference", "unet-basic", "baseline"),
        ("inference", "sum", "candidate"),
        ("inference", "unet-basic", "control"),
        ("training", "sum", "baseline"),
        ("training", "sum", "control"),
    ]


def test_a_trial_is_the_same_after_json(written):
    text = valid_with(baseline="{name: b, factory: 'm:f', options: {sizes: [1, 2]}}", size="[[64, 96]]", classes="3")
    for trial in trials(written, text):
        again = type(trial).from_dict(json.loads(json.dumps(trial.as_dict())))
        assert (again, again.key) == (trial, trial.key)


def test_references_are_rows_beside_the_pairings_and_each_model_is_there_once(written):
    references = "references: [{name: b, factory: 'm:f'}, {name: c, factory: 'm:g'}]\nmodes: [inference]\n"
    found = trials(written, valid_with(baseline="{name: b, factory: 'm:f'}") + references)
    assert [(str(trial), trial.role) for trial in found] == [
        ("b", "baseline"),
        ("resnet18 x unet-basic", "candidate"),
        ("c", "candidate"),
        ("b", "control"),
    ]


@pytest.mark.parametrize(
    ("quality", "steps"),
    [
        ("{data: brain-lobes}", BUDGETS["brain-lobes"]),
        ("{data: brain-lobes, budget: 7}", 7),
        ("{data: brain-lobes, budget: 2 min}", "2 min"),
        ("{data: cells}", OTHER_BUDGET),
    ],
)
def test_a_task_has_a_budget_of_its_own_where_none_is_given(written, quality, steps):
    config = load_config(written(valid_with(quality=quality)))
    assert fit_to_data(config, 7, 1, "data").quality.budget == steps


def test_data_given_in_place_of_a_files_have_their_own_budget(written):
    config = with_quality(load_config(written(valid_with(quality="{data: brain-lobes}"))), {"data": "cells"})
    assert fit_to_data(config, 7, 1, "cells").quality.budget == OTHER_BUDGET


def test_each_built_in_task_has_a_budget():
    assert BUDGETS.keys() == TASKS.keys()
