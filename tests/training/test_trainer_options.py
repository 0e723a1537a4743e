"""What is passed to Lightning: trainer keywords, callbacks and loggers; class weights, init_from and whole pairings."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from squares import ENCODER, READS, are_equal, squares, train_squares, weights

import zoo
from zoo import SegmentationData
from zoo.errors import ConfigError, DataError, OptionError, PluginError, WeightsError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]
OWN = __name__
CONFIG = Path(__file__).parents[2] / "configs/scenes.yaml"
EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.8}}


def last_log(folder):
    files = sorted((folder / "log").glob("*/metrics.csv"))
    with files[-1].open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"callbacks": [EMA]}, id="ema"),
        pytest.param({"trainer": {"accumulate_grad_batches": 2}, "batch": 1}, id="accumulation"),
        pytest.param({"class_weights": "auto", "loss": {"cross-entropy": 1, "tversky": 0.5}}, id="class weights"),
        pytest.param({"trainer": {"gradient_clip_val": 0.5}, "loss": f"{OWN}:own_loss"}, id="clipping and a loss of one's own"),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path, options):
    options = {"steps": 60, "batch": 2, "validations": 3, "decoder_options": {"dropout": 0.3}, **options}
    whole = train_squares(tmp_path / "whole", **options)
    before = READS + (24 if "class_weights" in options else 0)  # the masks are read once more to count pixels
    reads = 60 * options["batch"] * options.get("trainer", {}).get("accumulate_grad_batches", 1)
    with pytest.raises(DataError, match="the disk is gone"):
        train_squares(tmp_path / "cut", squares(broken_at=before + reads * 29 // 60), **options)
    resumed = train_squares(tmp_path / "cut", **options)
    assert (tmp_path / "cut" / "log" / "from-step-25").is_dir()
    for name in ("last", "best"):
        assert are_equal(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    assert resumed.test == whole.test


def own_loss(logits, masks):
    return torch.nn.functional.cross_entropy(logits, masks, ignore_index=255)


def test_accumulated_batches_are_a_larger_batch(tmp_path):
    shared = {"steps": 6, "validations": 0, "freeze_norms": True, "augment": False, "loss": "cross-entropy"}
    train_squares(tmp_path / "one", batch=4, **shared)
    train_squares(tmp_path / "two", batch=2, trainer={"accumulate_grad_batches": 2}, **shared)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def test_the_average_of_the_weights_is_what_is_tested_saved_and_loaded(tmp_path):
    options = {"steps": 24, "learning_rate": 4e-3, "validations": 2}
    plain = train_squares(tmp_path / "plain", **options)
    averaged = train_squares(tmp_path / "ema", callbacks=[EMA], **options)
    assert not are_equal(weights(tmp_path / "plain"), weights(tmp_path / "ema"))
    # the average changes nothing in the training itself, whose losses are the same
    losses = [[row["loss"] for row in last_log(tmp_path / name) if row["loss"]] for name in ("plain", "ema")]
    assert losses[0] == losses[1]
    model = zoo.load(averaged.checkpoint)
    data = squares()
    with torch.inference_mode():
        counts = [
            (model(model.normalize(image[None])).argmax(dim=1)[0][mask != 255] == mask[mask != 255]).sum()
            for image, mask in (data.test[index] for index in range(len(data.test)))
        ]
    assert averaged.test.accuracy == pytest.approx(float(sum(counts)) / averaged.test.pixels)
    assert averaged.test != plain.test


class Counter(Callback):
    """A callback of one's own, which counts steps and keeps no state."""

    steps = 0

    def __init__(self, start=0):
        Counter.steps = start

    def on_train_batch_end(self, *_, **__):
        Counter.steps += 1


def test_a_callback_of_ones_own_is_called_and_what_it_lacks_is_said(tmp_path, caplog):
    train_squares(tmp_path / "run", steps=5, callbacks=[{"class_path": f"{OWN}.Counter", "init_args": {"start": 10}}])
    assert Counter.steps == 15
    assert f"{OWN}.Counter stores no state in checkpoints" in caplog.text


def test_loggers_write_beside_the_csv_file(tmp_path):
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"name": "mine"}}
    train_squares(tmp_path / "run", steps=4, loggers=[logger])
    assert list((tmp_path / "run" / "mine").rglob("metrics.csv"))
    assert list((tmp_path / "run" / "log").rglob("metrics.csv"))


def test_the_share_of_the_time_that_training_waits_for_images_is_measured(tmp_path):
    class Slow(type(squares().train)):
        def __getitem__(self, index):
            if self.taken > READS:
                time.sleep(0.02)
            return super().__getitem__(index)

    data = squares()
    slow = SegmentationData(
        name="slow", classes=data.classes, train=Slow(24, 0), validation=data.validation, test=data.test, size=(32, 32)
    )
    waiting = train_squares(tmp_path / "slow", slow, steps=8, validations=0).waiting
    assert 0.3 < waiting < 1
    assert waiting > 2 * train_squares(tmp_path / "fast", steps=8, validations=0).waiting
    assert any(float(row["waiting"]) > 0 for row in last_log(tmp_path / "slow") if row["waiting"])
    again = train_squares(tmp_path / "slow", slow, steps=8, validations=0)
    assert again.waiting == waiting


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"trainer": {"max_steps": 4}}, ConfigError, "max_steps cannot be passed to Lightning's Trainer: use steps or epochs"),
        ({"trainer": {"limit_train_batches": 4}}, ConfigError, "limit_train_batches cannot be passed"),
        ({"trainer": {"gradient_clip": 1.0}}, OptionError, "has no keyword 'gradient_clip'. Did you mean 'gradient_clip_val'?"),
        ({"trainer": {"gradient_clip_algorithm": "length"}}, OptionError, "Lightning's Trainer could not be created"),
        ({"trainer": {"accumulate_grad_batches": 0}}, ConfigError, "a whole number of at least 1; found 0"),
        ({"trainer": {"strategy": "fsdp"}}, ConfigError, "one of Lightning's ddp strategies"),
        ({"trainer": {"precision": "64-true"}, "precision": "float32"}, ConfigError, "precision is given twice"),
        ({"callbacks": ["EMAWeightAveraging"]}, ConfigError, "an import path such as"),
        ({"callbacks": ["lightning.pytorch.callbacks.EMAWeightAverage"]}, OptionError, "Did you mean 'EMAWeightAveraging'?"),
        ({"callbacks": ["lightning.pytorch.loggers.CSVLogger"]}, OptionError, "must be a subclass of Lightning's Callback"),
        (
            {"callbacks": [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor", "init_args": {"decai": 1}}]},
            OptionError,
            "does not accept the arguments {'decai': 1}",
        ),
        ({"callbacks": ["lightning.pytorch.callbacks.Timer"]}, OptionError, "a run that it ends would count as finished"),
        (
            {
                "callbacks": [
                    {"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1}}
                ]
            },
            OptionError,
            "Use WeightAveraging or EMAWeightAveraging",
        ),
        (
            {"loggers": [{"class_path": "lightning.pytorch.loggers.WandbLogger"}]},
            OptionError,
            "needs a package that is not inst",
        ),
        ({"devices": 5, "device": "cpu"}, ConfigError, "devices=5 exceeds the number of images of squares: 4 for validation"),
        ({"callbacks": [EMA, EMA]}, OptionError, "more than one stateful callback of type `EMAWeightAveraging`"),
        ({"class_weights": [1.0, 2.0, 3.0]}, ConfigError, "class_weights has 3 numbers, but squares has 2 classes"),
        ({"class_weights": "auto", "loss": "lovasz"}, OptionError, r"no term of the loss \(lovasz\) accepts them"),
        ({"class_weights": [1.0, -2.0]}, ConfigError, "a list of numbers of at least 0, one for each class, is expected"),
        ({"workers": "many"}, ConfigError, "'auto' or a whole number of at least 0 is expected; found 'many'"),
        ({"callbacks": [{"class_path": "a.B", "args": {}}]}, ConfigError, "args: unknown key.*Allowed: class_path, init_args"),
    ],
)
def test_what_is_wrong_is_reported_before_a_folder_is_made(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        train_squares(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_automatic_class_weights_are_those_of_the_median_frequency(tmp_path, caplog):
    data = squares()
    masks = torch.stack([data.train[index][1] for index in range(24)])
    ground, square = (masks == 0).sum().item(), (masks == 1).sum().item()
    median = (ground + square) / 2
    train_squares(tmp_path / "auto", class_weights="auto", steps=4)
    assert f"class_weights: ground {median / ground:.3g}, square {median / square:.3g}" in caplog.text
    given = [median / ground, median / square]
    train_squares(tmp_path / "given", class_weights=given, steps=4)
    train_squares(tmp_path / "none", steps=4)
    assert are_equal(weights(tmp_path / "auto"), weights(tmp_path / "given"))
    assert not are_equal(weights(tmp_path / "auto"), weights(tmp_path / "none"))


def test_losses_without_class_weights_are_named(tmp_path, caplog):
    train_squares(tmp_path / "run", class_weights=[1.0, 2.0], loss="cross-entropy+lovasz", steps=2)
    assert "lovasz does not accept class_weights" in caplog.text


class Noisy(type(squares().train)):
    def __getitem__(self, index):
        image, mask = super().__getitem__(index)
        return image + 0.01 * torch.rand(image.shape), mask


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_automatic_class_weights_of_random_samples_are_refused(tmp_path):
    data = squares()
    noisy = SegmentationData(
        name="noisy", classes=data.classes, train=Noisy(24, 0), validation=data.validation, test=data.test, size=(32, 32)
    )
    with pytest.raises(DataError, match="auto requires training samples that stay the same"):
        train_squares(tmp_path / "run", noisy, class_weights="auto", steps=2)


def test_a_changed_loss_of_ones_own_is_another_run(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch.nn.functional as F\n\n"
        "def mine(logits, masks):\n    return F.cross_entropy(logits, masks, ignore_index=255)\n"
    )
    train_squares(tmp_path / "run", loss=f"{file}:mine", steps=2)
    assert train_squares(tmp_path / "run", loss=f"{file}:mine", steps=2).steps == 2
    file.write_text(file.read_text() + "\n# another\n")
    with pytest.raises(ConfigError, match=r"other settings, which differ in files.mine.py"):
        train_squares(tmp_path / "run", loss=f"{file}:mine", steps=2)


def test_training_starts_from_a_saved_model(tmp_path, caplog):
    first = train_squares(tmp_path / "first", steps=30, batch=8, learning_rate=4e-3)
    folder = tmp_path / "saved"
    zoo.save(zoo.load(first.checkpoint), folder)
    for name, start in (("from-folder", folder), ("from-checkpoint", first.checkpoint)):
        second = train_squares(tmp_path / name, init_from=start, steps=1, learning_rate=1e-6)
        assert second.test.miou == pytest.approx(first.test.miou, abs=0.02)
    assert are_equal(weights(tmp_path / "from-folder"), weights(tmp_path / "from-checkpoint"))
    assert "init_from" not in caplog.text


def test_another_number_of_classes_gets_a_new_head(tmp_path, caplog):
    first = train_squares(tmp_path / "first", steps=4)
    data = squares()
    three = SegmentationData(
        name="three", classes=("a", "b", "c"), train=data.train, validation=data.validation, test=data.test, size=(32, 32)
    )
    train_squares(tmp_path / "second", three, init_from=first.checkpoint, steps=1, learning_rate=1e-9, weight_decay=0.0)
    assert "the head is new" in caplog.text
    assert "has 2 classes and the data have 3" in caplog.text
    before, after = weights(tmp_path / "first", "best"), weights(tmp_path / "second")
    other = [name for name in before if before[name].shape != after[name].shape]
    assert {name.split(".")[1] for name in other} == {"head"}
    assert all(
        torch.allclose(before[n], after[n], atol=1e-5)
        for n in before
        if n not in other and "running" not in n and "num_b" not in n
    )


def test_other_classes_of_the_same_number_keep_the_head_and_are_named(tmp_path, caplog):
    first = train_squares(tmp_path / "first", steps=2)
    data = squares()
    other = SegmentationData(
        name="other", classes=("sky", "kite"), train=data.train, validation=data.validation, test=data.test, size=(32, 32)
    )
    train_squares(tmp_path / "second", other, init_from=first.checkpoint, steps=1)
    assert "although its classes (ground, square) are not those of the data (sky, kite)" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init_from": "nowhere"}, WeightsError, "nowhere does not exist"),
        ({"levels": 4}, WeightsError, "is another model"),
        ({"weights": "a.safetensors"}, OptionError, "weights='a.safetensors' and init_from="),
    ],
)
def test_what_training_cannot_start_from_is_refused(tmp_path, options, error, message):
    first = train_squares(tmp_path / "first", steps=1)
    with pytest.raises(error, match=message):
        train_squares(tmp_path / "run", **{"init_from": first.checkpoint, "steps": 1, **options})


def test_a_whole_pairing_is_trained_with_its_options(tmp_path):
    pairing = zoo.Pairing(ENCODER, "unet-basic", classes=2, levels=3, decoder_options={"channels": [16, 16, 16]})
    for name, arguments in (("second", {}), ("by-name", {})):
        data = {"data": squares()} if name == "by-name" else {}
        positional = () if data else (squares(),)
        zoo.train(pairing, *positional, **data, output=tmp_path / name, steps=2, validations=0, batch=4, **arguments)
    assert zoo.load(tmp_path / "second" / "last.ckpt").pairing == pairing
    assert are_equal(weights(tmp_path / "second"), weights(tmp_path / "by-name"))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("unet-basic", squares()), {}, OptionError, "is a whole pairing, but a decoder was passed with it"),
        ((), {}, OptionError, "zoo.train needs data"),
        ((squares(),), {"levels": 3}, ConfigError, "levels: unknown key"),
    ],
)
def test_a_whole_pairing_is_passed_with_the_data_alone(tmp_path, arguments, options, error, message):
    with pytest.raises(error, match=message):
        zoo.train(zoo.Pairing(ENCODER, "unet-basic", classes=2), *arguments, output=tmp_path / "run", **options)


def test_a_pairing_of_other_classes_than_the_datas_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"classes is 1, but squares has 2\. Set classes=2"):
        zoo.train(zoo.Pairing(ENCODER, "unet-basic"), squares(), output=tmp_path / "run")


def test_a_failing_loss_of_ones_own_names_itself(tmp_path):
    with pytest.raises(PluginError, match="must return a scalar tensor"):
        train_squares(tmp_path / "run", loss=f"{OWN}:per_pixel", steps=2)


def per_pixel(logits, masks):
    return torch.nn.functional.cross_entropy(logits, masks, ignore_index=255, reduction="none")


def test_a_callback_that_fails_in_training_is_named(tmp_path):
    wrong = {"class_path": EMA["class_path"], "init_args": {"decai": 0.9}}  # Lightning passes it on without a check
    with pytest.raises(PluginError, match=r"decai.* check the callbacks and loggers \(lightning.pytorch.callbacks.EMAWeight"):
        train_squares(tmp_path / "run", callbacks=[wrong], steps=2)


def test_the_configuration_with_every_option_resumes_after_a_kill_to_the_same_weights(
    tmp_path, command_line, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    arguments = ["train", str(CONFIG), "--set", "steps=40"]
    status, out, errors = command_line(*arguments, "--output", "whole")
    assert status == 0, errors
    assert "Training waited for images" in out
    assert all(words in errors for words in ("validation has 1 group ", "value_range: [[", "mean: ["))
    assert "class_weights: ground 0.667, field 2" in caplog.text
    command = [sys.executable, "-m", "zoo", *arguments, "--output", "cut"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "cut/last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "cut/result.json").exists()
    status, resumed, errors = command_line(*arguments, "--output", "cut")
    assert status == 0, errors
    for name in ("last", "best"):
        assert are_equal(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    scores = [text.partition("test split")[2].partition("zoo.load")[0] for text in (out, resumed)]
    assert scores[0] == scores[1]
    assert list((tmp_path / "cut/my-log").rglob("metrics.csv"))
    start = ["--set", "steps=1", "--set", "init_from=whole/best.ckpt", "--set", "learning_rate=1e-9"]
    status, out, errors = command_line("train", str(CONFIG), *start, "--output", "from-whole")
    assert status == 0, errors
    assert f"Weights: {tmp_path / 'whole/best.ckpt'}" in errors
    miou = float(out.partition("mean IoU")[2].split()[0])
    assert miou == pytest.approx(float(resumed.partition("mean IoU")[2].split()[0]), abs=0.02)


def test_pixels_of_another_unit_than_those_of_the_model_to_start_from_are_named(tmp_path, caplog):
    scenes = CONFIG.parent / "scenes"
    options = {"output": tmp_path / "first", "steps": 1, "validations": 0, "levels": 3, "batch": 2}
    first = zoo.train(ENCODER, "unet-basic", zoo.open_data(scenes, value_range=[0, 1500]), **options)
    other = zoo.open_data(scenes, value_range=[0, 4095])
    zoo.train(ENCODER, "unet-basic", other, **options | {"output": tmp_path / "second", "init_from": first.checkpoint})
    assert "was trained on pixels scaled by the value range [0, 1500], but the data are scaled by [0, 4095]" in caplog.text


def test_options_of_the_data_are_settings_of_the_command_line(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = str(CONFIG.parent / "scenes")
    settings = ["steps=1", "validations=0", "size=32", "levels=3", "data.classes=[ground, field]", "data.group='^[a-z]+'"]
    options = [part for text in settings for part in ("--set", text)]
    status, out, errors = command_line("train", ENCODER, "unet-basic", "--data", scenes, "--output", "run", *options)
    assert status == 0, errors
    assert "field" in out
    assert "1 group (4 images)" in errors
    status, out, errors = command_line(
        "train", str(CONFIG), "--output", "run2", "--set", "steps=1", "--set", "data.classes=[a, b]"
    )
    assert status == 0, errors
    assert "value_range: [[" in errors  # the other options of the file stay
    assert zoo.load(tmp_path / "run2/best.ckpt").class_names == ("a", "b")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("values=[0, 1]", "values: unknown key"),
        ("data.value=[0, 1]", "value: unknown key. Did you mean 'values'?"),
        ("data.values=no", "values: Input should be a valid list; found 'no'"),
    ],
)
def test_wrong_settings_of_the_command_line_are_named_before_the_data_are_read(tmp_path, command_line, setting, message):
    folder = tmp_path / "scenes"
    (folder / "images").mkdir(parents=True)  # reading it would be an error, too
    output = str(tmp_path / "run")
    status, _, errors = command_line(
        "train", ENCODER, "unet-basic", "--data", str(folder), "--output", output, "--set", setting
    )
    assert status == 2
    assert message in " ".join(errors.split())


def test_the_folder_of_a_training_names_its_checkpoint(tmp_path):
    train_squares(tmp_path / "run", steps=1)
    with pytest.raises(WeightsError, match=r"is the folder of a training run, not of a saved model. Pass .*best\.ckpt"):
        zoo.load(tmp_path / "run")
