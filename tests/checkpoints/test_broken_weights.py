"""Weights and facts of a saved model that are of no use: refused by name, and never loaded, saved or predicted with."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.ops import FrozenBatchNorm2d

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHT = "head.weight"


def made():
    torch.manual_seed(0)
    return zoo.build("timm:test_resnet", "unet-basic", classes=2).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return zoo.save(made(), tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def altered(saved, tmp_path):
    """Return a function that copies the saved model with its tensors and its facts changed, the hash made to fit."""

    def copy(tensors=None, facts=None):
        place = tmp_path / "altered"
        place.mkdir()
        state = load_file(saved / "model.safetensors")
        if tensors is not None:
            tensors(state)
        save_file(state, place / "model.safetensors")
        told = yaml.safe_load((saved / "config.yaml").read_text(encoding="utf-8"))
        told["sha256"] = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
        if facts is not None:
            facts(told)
        (place / "config.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        return place

    return copy


def changed(name, change):
    def alter(state):
        state[name] = change(state[name])

    return alter


def with_first(value):
    def change(tensor):
        return torch.cat([torch.full((1,), value), tensor.flatten()[1:]]).view_as(tensor)

    return change


USELESS = {
    "NaN": with_first(float("nan")),
    "infinity": with_first(float("inf")),
    "float64 beyond float32": lambda tensor: torch.full_like(tensor, 1e300, dtype=torch.float64),
}
OTHER_KINDS = {
    "int8": lambda tensor: tensor.to(torch.int8),
    "bool": lambda tensor: tensor > 0,
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "int64": lambda tensor: tensor.long(),
}


@pytest.mark.parametrize("change", [*USELESS.values(), *OTHER_KINDS.values()], ids=[*USELESS, *OTHER_KINDS])
def test_useless_weights_are_not_loaded(altered, change):
    place = altered(changed(WEIGHT, change))
    with pytest.raises(zoo.errors.WeightsError, match=r"head\.weight"):
        zoo.load(place)
    model = made()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for weights in (place / "model.safetensors", load_file(place / "model.safetensors")):
        for strict in (True, False):
            with pytest.raises(zoo.errors.WeightsError, match=r"(?s)head\.weight"):
                zoo.load_weights(model, weights, strict=strict)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("change", [*USELESS.values(), *OTHER_KINDS.values()], ids=[*USELESS, *OTHER_KINDS])
@pytest.mark.parametrize("encoder", ["resnet18", "timm:test_resnet", "smp:resnet18"])
def test_an_encoder_is_not_built_with_useless_weights(encoder, change, tmp_path):
    model = zoo.build(encoder, "unet-basic", levels=2)
    state = {key.removeprefix("network."): tensor for key, tensor in model.encoder.state_dict().items()}
    name = next(key for key, tensor in state.items() if tensor.ndim == 4)
    save_file({**state, name: change(state[name])}, tmp_path / "encoder.safetensors")
    with pytest.raises(zoo.errors.WeightsError, match=name.rpartition(".")[2]):
        zoo.build(encoder, "unet-basic", levels=2, weights=str(tmp_path / "encoder.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_are_loaded(altered, dtype):
    place = altered(changed(WEIGHT, lambda tensor: tensor.to(dtype)))
    assert zoo.load(place).head.weight.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_diverged_is_not_saved(value, tmp_path):
    model = made()
    with torch.no_grad():
        model.head.bias[0] = value
    with pytest.raises(zoo.errors.WeightsError, match=r"cannot be saved: head\.bias contains NaN or infinity in 1 of 2 values"):
        zoo.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


STATISTICS = {
    "infinite mean": ("running_mean", with_first(float("inf")), "NaN or infinity"),
    "mean of minus infinity": ("running_mean", with_first(-float("inf")), "NaN or infinity"),
    "infinite variance": ("running_var", with_first(float("inf")), "NaN or infinity"),
    "negative variance": ("running_var", with_first(-1.0), "a variance below 0"),
    "float64 beyond float32": ("running_var", USELESS["float64 beyond float32"], "NaN or infinity"),
}


@pytest.mark.parametrize(("name", "change", "words"), STATISTICS.values(), ids=STATISTICS)
def test_statistics_of_a_norm_that_make_every_mask_the_same_are_not_loaded(altered, name, change, words):
    key = next(key for key in made().state_dict() if key.endswith(name))
    place = altered(changed(key, change))
    with pytest.raises(zoo.errors.WeightsError, match=rf"{name} contains {words} in"):
        zoo.load(place)
    with pytest.raises(zoo.errors.WeightsError, match=rf"{name} contains {words} in"):
        zoo.load_weights(made(), place / "model.safetensors")


def test_a_frozen_norms_weight_is_a_buffer_that_may_not_be_infinite(tmp_path):
    model = made()
    model.encoder.register_module("frozen", FrozenBatchNorm2d(4))
    model.encoder.frozen.weight[1] = float("inf")
    with pytest.raises(zoo.errors.WeightsError, match=r"encoder\.frozen\.weight contains NaN or infinity in 1 of 4 values"):
        zoo.save(model, tmp_path / "model")


def test_a_mask_of_minus_infinity_is_no_fault(tmp_path):
    model = made()
    model.encoder.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    with pytest.raises(zoo.errors.WeightsError, match=r"encoder\.mask"):  # of the pairing, the mask is unexpected
        zoo.load(zoo.save(model, tmp_path / "model"))


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [float("nan"), 0.0, 0.0]},
        {"mean": ["a", "b", "c"]},
        {"mean": [float("inf"), 0.0, 0.0]},
        {"mean": [1e300, 0.0, 0.0]},
        {"mean": [True, False, False]},
        {"std": [True, True, True]},
        {"std": [1e300, 1.0, 1.0]},
        {"std": [1e-320, 1.0, 1.0]},
        {"std": [1e12, 1.0, 1.0]},
        {"value_range": [0.0, 1e-300]},
        {"value_range": [-1e300, 1e300]},
        {"value_range": [False, True]},
        {"std": [0.0, 1.0, 1.0]},
        {"std": [float("inf"), 1.0, 1.0]},
        {"value_range": [1.0, 1.0]},
        {"value_range": [1.0, 0.0]},
        {"value_range": ["low", "high"]},
        {"mean": [0.5], "std": [0.5]},
    ],
)
def test_a_normalization_that_cannot_be_is_refused(altered, changes):
    place = altered(facts=lambda told: told["preprocessing"].update(changes))
    with pytest.raises(zoo.errors.ConfigError, match="normali"):
        zoo.load(place)


@pytest.mark.parametrize(
    "value_range",
    [[[0.0, 1.0]], [[0.0, 1.0]] * 4, [[1.0, 1.0]] * 3, [[0.0, float("inf")]] * 3, [[-1e308, 1e308]] * 3, [0.0, 1.0], "auto"],
)
def test_a_value_range_that_cannot_be_is_refused(altered, value_range):
    place = altered(facts=lambda told: told.update(value_range=value_range))
    with pytest.raises(zoo.errors.ConfigError, match="value_range"):
        zoo.load(place)


def test_a_model_that_was_saved_without_a_value_range_has_none(altered):
    place = altered(facts=lambda told: told.pop("value_range"))
    assert zoo.load(place).value_range is None


@pytest.mark.parametrize(
    "changes",
    [{"classes": 200_000_000}, {"in_channels": 100_000_000}, {"classes": 60_000}, {"in_channels": 60_000}],
)
def test_a_configuration_that_its_weights_refute_takes_no_memory(altered, changes):
    place = altered(facts=lambda told: told["pairing"].update(changes))
    began = time.perf_counter()
    with pytest.raises(
        zoo.ZooError, match=r"does not fit|differs from the plan that|at most 65,536|preprocessing has 3 channels"
    ):
        zoo.load(place)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("is_recursive", [True, False])
def test_a_pickle_that_is_nested_without_end_is_refused_at_once(tmp_path, strict, is_recursive):
    names = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net", "network")
    nested = {"epoch": 3}
    if is_recursive:
        nested |= dict.fromkeys(names, nested)
        nested["model"] = nested
    else:
        for _ in range(24):
            nested = dict.fromkeys(names, nested)
    torch.save(nested, tmp_path / "nested.pth")
    began = time.perf_counter()
    for read in (zoo.read_state_dict, zoo.load, lambda path: zoo.load_weights(made(), path, strict=strict)):
        with pytest.raises(zoo.errors.WeightsError):
            read(tmp_path / "nested.pth")
    assert time.perf_counter() - began < 5


def test_facts_of_a_checkpoint_that_are_nested_without_end_are_refused_at_once(tmp_path):
    nested = [1]
    for _ in range(60):
        nested = [nested, nested]
    facts = {"pairing": {"encoder": "resnet18", "decoder": "unet-basic", "encoder_options": {"a": nested}}, "plan": {}}
    torch.save({"state_dict": {}, "zoo": {"model": facts | {"plugins": {}}}}, tmp_path / "nested.ckpt")
    with pytest.raises(zoo.errors.WeightsError, match="nested too deeply"):
        zoo.load(tmp_path / "nested.ckpt")


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_a_file_of_no_tensors_names_few_of_its_entries(name, tmp_path):
    torch.save({name: {f"entry{index}": index for index in range(1000)}}, tmp_path / "a.pth")
    with pytest.raises(zoo.errors.WeightsError) as caught:
        zoo.read_state_dict(tmp_path / "a.pth")
    assert len(str(caught.value)) < 500


def test_logits_that_are_nan_are_no_mask(saved, tmp_path):
    model = zoo.load(saved)
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    image = np.zeros((40, 30, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    predictor = zoo.Predictor(model, device="cpu")
    with pytest.raises(zoo.errors.InputError, match="NaN"):
        predictor(image)
    found = zoo.predict_files(predictor, tmp_path / "a.png", tmp_path / "out")
    assert list(found.failed) == [tmp_path / "a.png"]
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(zoo.errors.InputError, match="NaN"):
        zoo.Predictor(model, device="cpu", tile=32)(image)
