"""`zoo.save` and `zoo.load`: the same model in a new process, or an error that says what is wrong; never half of one."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import zoo
from zoo.registry.plugin_files import load_plugin_file
from zoo.registry.registry import default_registry

ROOT = Path(__file__).parents[2]
ENCODER = "timm:test_resnet"
IMAGE = (2, 3, 50, 70)


def built(decoder="unet-basic", encoder=ENCODER, **options):
    torch.manual_seed(0)
    model = zoo.build(encoder, decoder, classes=3, **options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


def output(model):
    with torch.no_grad():
        return model(torch.rand(IMAGE, generator=torch.Generator().manual_seed(1)))


def config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def rewrite(folder, change):
    facts = config(folder)
    change(facts)
    (folder / "config.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")


LOAD_ALL = """
import pathlib, sys
import torch
import zoo

image = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(1))
for place in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    model = zoo.load(place)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(image), torch.load(place / "output.pt", weights_only=True)), place.name
    print(place.name)
"""


def check_in_a_new_process(folder, models):
    """Save the models, and compare what they give with what they give where all are loaded in one new process."""
    for name, model in models:
        torch.save(output(model), zoo.save(model, folder / name) / "output.pt")
    command = [sys.executable, "-W", "error", "-c", LOAD_ALL, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("one_thread")
def test_a_model_gives_the_same_bits_in_a_new_process(tmp_path):
    models = {
        "basic": built(),
        "some-levels": built("unet-attention", "resnet18", levels=3),
        "one-size": built("smp:fpn", "timm:test_vit", image_size=(50, 70)),
        "auxiliary": built("smp:unet", "smp:mobileone_s0", aux_levels=2, decoder_options={"attention": "scse"}),
    }
    check_in_a_new_process(tmp_path, models.items())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_every_pairing_of_the_project_gives_the_same_bits_in_a_new_process(tmp_path):
    fixed = {"resnet18": {}, "timm:test_vit": {"image_size": (64, 80)}, "smp:mobilenet_v2": {}, "timm:convnext_atto": {}}
    decoders = [decoder for decoder in zoo.list_decoders() if decoder.startswith(("unet-", "smp:"))]
    assert len(decoders) == 15

    def models():
        for encoder, options in fixed.items():
            for decoder in decoders:
                try:
                    yield f"{encoder}-{decoder}".replace(":", "_"), built(decoder, encoder, **options)
                except zoo.errors.NegotiationError:
                    continue  # PAN wants two maps of stride 16 or finer, DPT four maps

    check_in_a_new_process(tmp_path, models())
    assert len(list(tmp_path.iterdir())) >= 55


def test_what_was_known_of_the_model_is_known_again(tmp_path):
    model = built()
    model.preprocessing = zoo.Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), value_range=(0.0, 255.0))
    model.value_range = ((0.0, 4095.0), (12.5, 300.0), (-1.0, 1.0))
    place = zoo.save(model, tmp_path / "model", classes=["road", "wall", "sky"], metrics={"test": {"miou": 0.75}})
    again = zoo.load(place)
    assert again.pairing == model.pairing
    assert again.preprocessing == model.preprocessing
    assert again.value_range == model.value_range
    assert "[[0, 4095], [12.5, 300], [-1, 1]]" in (place / "README.md").read_text(encoding="utf-8")
    assert again.licenses == model.licenses
    assert again.class_names == ("road", "wall", "sky")
    assert config(place)["metrics"] == {"test": {"miou": 0.75}}
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    zoo.save(again, tmp_path / "copy")
    assert zoo.load(tmp_path / "copy").class_names == ("road", "wall", "sky")


def test_the_card_says_what_it_is(tmp_path):
    place = zoo.save(built(), tmp_path / "model", classes=["road", "wall", "sky"], metrics={"test": {"miou": 0.75}})
    card = (place / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["pipeline_tag"] == "image-segmentation"
    assert all(part in card for part in ("road, wall, sky", "test.miou: 0.75", "zoo.load", ENCODER, "The plan", "Apache-2.0"))


def of_a_plan(facts):
    facts["plan"]["maps"] = ["elsewhere"]


def of_a_plugin(facts):
    facts["pairing"]["decoder"] = "their:decoder"
    facts["plugins"]["their:decoder"] = {"distribution": "their-decoders", "version": "2.1"}


def checkpoint(folder, change=lambda facts: None):
    """Write a checkpoint as training does, but for what is changed of its facts."""
    model = built()
    facts = config(zoo.save(model, folder / "as it is", classes=["a", "b", "c"]))
    kept = {key: facts[key] for key in ("pairing", "plan", "plugins", "preprocessing", "licenses", "classes")}
    kept["colors"] = [[0, 0, 0], [9, 9, 9], [5, 5, 5]]
    change(kept)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "zoo": {"run": "a", "model": kept}}, folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_trained_checkpoint_becomes_a_folder_with_its_classes(tmp_path):
    place = zoo.save(zoo.load(checkpoint(tmp_path)), tmp_path / "model")
    assert zoo.load(place).colors == ((0, 0, 0), (9, 9, 9), (5, 5, 5))
    assert config(place)["classes"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda facts: facts["pairing"].update(level=2), r"pairing\.level: unknown key\. Did you mean 'levels'\?"),
        (lambda facts: facts.pop("preprocessing"), "preprocessing: this key is required"),
        (lambda facts: facts.pop("plan"), "plan: this key is required"),
        (lambda facts: facts["colors"].pop(), "2 colors for a model of 3 classes"),
        (of_a_plan, r"differs from the plan that.*maps: saved \['elsewhere'\]"),
        (of_a_plugin, 'was saved: pip install .*"their-decoders==2.1"'),
    ],
)
def test_a_checkpoint_of_another_version_is_told(tmp_path, change, told):
    with pytest.raises(zoo.ZooError, match=f"(?s){told}"):
        zoo.load(checkpoint(tmp_path, change))


def test_saving_again_replaces_the_model_and_leaves_nothing_else(tmp_path):
    place = zoo.save(built(), tmp_path / "model")
    for number in range(3):
        model = built()
        with torch.no_grad():
            model.head.bias.fill_(float(number))
        zoo.save(model, place)
        assert torch.equal(output(zoo.load(place)), output(model))
        assert len(list(place.iterdir())) == 3
    zoo.save(model, place)  # the same once more
    assert torch.equal(output(zoo.load(place)), output(model))


def broken(change):
    def spoil(place):
        path = place / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def other_weights(place):
    save_file({"a": torch.zeros(2)}, place / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (broken(lambda content: content[: len(content) // 2]), "truncated or altered"),
        (broken(lambda content: content[:-1] + bytes([content[-1] ^ 1])), "truncated or altered"),
        (broken(lambda content: b""), "truncated or altered"),
        (other_weights, "truncated or altered"),
        (lambda place: (place / "model.safetensors").unlink(), "could not be read: No such file"),
        (lambda place: (place / "config.yaml").unlink(), "contains no saved model"),
        (lambda place: (place / "config.yaml").write_text("a: [", encoding="utf-8"), "not valid YAML"),
        (lambda place: (place / "config.yaml").write_text("- a", encoding="utf-8"), "must contain keys and values"),
        (
            lambda place: (place / "config.yaml").write_text("a: !!python/object/apply:os.system [ls]", encoding="utf-8"),
            "not valid YAML",
        ),
        (lambda place: rewrite(place, lambda facts: facts.pop("sha256")), "sha256: this key is required"),
        (lambda place: rewrite(place, lambda facts: facts.update(format=2)), "format"),
        (lambda place: rewrite(place, lambda facts: facts.update(weights="../../other.safetensors")), "weights"),
        (lambda place: rewrite(place, lambda facts: facts["pairing"].update(classes="three")), "classes"),
        (lambda place: rewrite(place, lambda facts: facts["pairing"].update(color="red")), r"pairing\.color: unknown key"),
        (
            lambda place: rewrite(place, lambda facts: facts["preprocessing"].pop("mean")),
            r"preprocessing\.mean: this key is required",
        ),
        (
            lambda place: rewrite(place, lambda facts: facts["preprocessing"].update(std=[0, 1, 1])),
            "preprocessing: .*std must be above 0",
        ),
        (lambda place: rewrite(place, lambda facts: facts["licenses"].update(data="MIT")), r"licenses\.data"),
        (lambda place: rewrite(place, of_a_plan), r"differs from the plan that.*maps: saved \['elsewhere'\]"),
        (lambda place: rewrite(place, of_a_plugin), r'pip install .*"their-decoders==2\.1"'),
        (lambda place: rewrite(place, lambda facts: facts["pairing"].update(classes=4)), "does not fit .*size mismatch"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path, spoil, told):
    place = zoo.save(built(), tmp_path / "model")
    spoil(place)
    with pytest.raises(zoo.ZooError, match=f"(?s){told}"):
        zoo.load(place)


def versions(version):
    def change(facts):
        for each in facts["plugins"].values():
            each["version"] = version

    return change


def test_a_plugin_of_another_version_is_told_with_what_installs_the_one_before(tmp_path):
    place = zoo.save(built(), tmp_path / "model")
    here = config(place)["plugins"][ENCODER]["version"]
    rewrite(place, versions("0.0.9"))
    with pytest.warns(UserWarning, match=r'pip install "segmentation-zoo==0\.0\.9"') as told:
        assert torch.equal(output(zoo.load(place)), output(built()))
    assert len(told) == 1  # both sides are of one distribution
    message = f"saved with segmentation-zoo 0.0.9. The installed {ENCODER} comes from segmentation-zoo {here}, so"
    assert message in str(told[0].message)
    assert told[0].filename == __file__


def test_a_plugins_patch_release_is_not_told(tmp_path):
    place = zoo.save(built(), tmp_path / "model")
    major, minor, *_ = config(place)["plugins"][ENCODER]["version"].split(".")
    rewrite(place, versions(f"{major}.{minor}.99"))
    assert torch.equal(output(zoo.load(place)), output(built()))  # a warning would be an error


PLUGIN = """
    import torch
    import zoo

    class Last(torch.nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride

        def forward(self, features):
            return features[-1] * {factor}

    @zoo.plugin.hookimpl
    def zoo_decoders():
        yield zoo.plugin.DecoderSpec(name="last", factory="{module}:Last")
"""


def test_a_bare_name_stands_for_the_plugin_that_it_was_saved_with(tmp_path, install):
    def put(distribution, factor):
        module = f"{distribution}_decoders"
        install(distribution, {"zoo": {distribution: module}}, {module: PLUGIN.format(factor=factor, module=module)})

    put("theirs", 1)
    model = built("last")
    place = zoo.save(model, tmp_path / "model")
    put("others", 2)
    again = zoo.load(place)
    assert again.pairing == model.pairing
    assert torch.equal(output(again), output(model))
    (tmp_path / "site-packages/theirs-1.0.dist-info/entry_points.txt").unlink()
    default_registry.cache_clear()
    with pytest.raises(zoo.errors.UnknownIdError, match=r'(?s)needs a plugin that is not installed here.*"theirs==1\.0"'):
        zoo.load(place)


def test_a_pickle_in_the_weights_place_is_not_read(tmp_path):
    place = zoo.save(built(), tmp_path / "model")
    path = place / "model.safetensors"
    torch.save({"a": 1}, path)
    import hashlib

    rewrite(place, lambda facts: facts.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(zoo.errors.WeightsError, match="cannot be read as safetensors"):
        zoo.load(place)


@pytest.mark.parametrize("is_file", [True, False])
def test_what_is_no_saved_model_is_never_overwritten(tmp_path, is_file):
    place = tmp_path / "thesis"
    if is_file:
        place.write_text("words", encoding="utf-8")
    else:
        place.mkdir()
        (place / "chapter.txt").write_text("words", encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match="nothing was written there"):
        zoo.save(built(), place)
    assert (place if is_file else place / "chapter.txt").read_text(encoding="utf-8") == "words"


def test_a_broken_saved_model_is_not_replaced_unasked(tmp_path):
    place = zoo.save(built(), tmp_path / "model")
    (place / "config.yaml").write_text("name: another program's", encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match="is not replaced"):
        zoo.save(built(), place)
    assert (place / "model.safetensors").is_file()


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path, monkeypatch):
    place = tmp_path / "model"
    place.mkdir()
    (place / ".draft.1").mkdir()  # a kill left it
    monkeypatch.chdir(place)  # as a volume's folder, it cannot be another
    assert zoo.save(built(), ".") == Path()
    assert sorted(path.name for path in Path().iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    assert torch.equal(output(zoo.load(place)), output(built()))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_stays_and_the_folder_is_filled(tmp_path, is_there):
    if is_there:
        (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    zoo.save(built(), tmp_path / "model")
    assert (tmp_path / "model").is_symlink()
    assert torch.equal(output(zoo.load(tmp_path / "disk")), output(built()))


def test_what_cannot_be_saved_is_told(tmp_path):
    with pytest.raises(zoo.errors.OptionError, match="2 names were given, but the model has 3 classes"):
        zoo.save(built(), tmp_path / "model", classes=["a", "b"])
    model = built()
    model.colors = ((0, 0, 0),)
    with pytest.raises(zoo.errors.OptionError, match="1 colors were given, but the model has 3 classes"):
        zoo.save(model, tmp_path / "model")
    for names in ("abc", [1, 2, 3]):
        with pytest.raises(zoo.errors.OptionError, match="classes must be a sequence of names, one for each class"):
            zoo.save(built(), tmp_path / "model", classes=names)
    (tmp_path / "file").write_text("words", encoding="utf-8")
    with pytest.raises(zoo.errors.OptionError, match="file/model cannot be written: Not a directory"):
        zoo.save(built(), tmp_path / "file" / "model")
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.Conv2d(8, 8, 3, stride=2, padding=1))
    with pytest.raises(zoo.errors.OptionError, match="is a plain module, not a registered encoder"):
        zoo.save(zoo.build(body, "unet-basic"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_names_of_classes_that_look_like_numbers_come_back(tmp_path):
    names = ("1e3", "7", "no")
    assert zoo.load(zoo.save(built(), tmp_path / "model", classes=names)).class_names == names


@pytest.mark.parametrize("metrics", [{"miou": torch.tensor(0.5)}, {"iou": [Path("scores")]}, {3: 0.5}])
def test_metrics_that_are_no_plain_data_are_refused_before_anything_is_written(tmp_path, metrics):
    place = zoo.save(built(), tmp_path / "model")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    other = built()
    torch.nn.init.ones_(other.head.bias)
    with pytest.raises(zoo.errors.OptionError, match=r"metrics.* must be plain data .*found a (Tensor|PosixPath|dict)"):
        zoo.save(other, place, metrics=metrics)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_metrics_may_be_numpys_and_no_number_at_all(tmp_path):
    metrics = {"miou": np.float32(0.5), "images": np.int64(3), "dice": (float("nan"), np.float64(0.25))}
    told = config(zoo.save(built(), tmp_path / "model", metrics=metrics))["metrics"]
    assert told["miou"] == 0.5
    assert told["images"] == 3
    assert math.isnan(told["dice"][0])
    assert told["dice"][1] == 0.25


SAVE = """
import sys
import torch
import zoo

model = zoo.build("timm:test_resnet", "unet-basic", classes=3)
print("ready", flush=True)
number = 0
while True:
    number += 1
    torch.nn.init.constant_(model.head.bias, float(number))
    zoo.save(model, sys.argv[1])
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_model(tmp_path):
    chance = random.Random(0)
    place = tmp_path / "model"
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", SAVE, place], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + chance.random() / 4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if place.exists():  # the first may have been killed before it was done
            assert zoo.load(place).pairing.classes == 3
    assert place.exists()


def test_a_repository_of_the_hub_is_a_folder_too(tmp_path):
    place = tmp_path / "hub" / "models--someone--net"
    snapshot = place / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.parent.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(snapshot.name, encoding="utf-8")
    zoo.save(built(), snapshot)
    script = """
import zoo

print(zoo.load("hf-hub:someone/net").pairing.encoder)
zoo.load("hf-hub:someone/other")
"""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_CACHE"}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == ENCODER, done.stderr
    assert done.returncode
    assert "hf-hub:someone/other could not be fetched" in done.stderr


def test_commands_are_given_the_file_that_a_models_decoder_comes_from(tmp_path, fresh_registry, command_line, monkeypatch):
    script = ROOT / "docs/examples/sum_decoder.py"
    load_plugin_file(script)
    place = zoo.save(built("sum"), tmp_path / "model")
    default_registry.cache_clear()
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("image.png")
    predict = ("predict", place, "image.png", "-o", "masks")
    export = ("export", place, "-f", "torch-export", "--fixed", "--size", 64)
    for command in (predict, export):
        status, _, errors = command_line(*command)
        assert status == 2
        assert "needs a plugin that is not installed here" in errors
        assert "A script registered the decoder sum. Run that script first" in errors
        status, _, errors = command_line(*command, "--plugin", script)
        assert (status, errors) == (0, "")
        default_registry.cache_clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.png", "masks", "model", "model-64x64.pt2"]


def test_a_model_in_the_users_folder_is_found_by_its_short_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    zoo.save(zoo.build("timm:test_resnet", "unet-basic"), tmp_path / "model")
    assert zoo.load("~/model").pairing.encoder == "timm:test_resnet"
