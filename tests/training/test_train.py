"""`zoo.train` as a user meets it: it learns, repeats itself, goes on where it was interrupted, and refuses what cannot be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from squares import ENCODER, READS, Squares, are_equal, squares, train_squares, weights

import zoo
from zoo import SegmentationData
from zoo.training.fit import fit
from zoo.training.scores import scores_of
from zoo.training.settings import TrainSettings

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]


def test_it_learns_what_is_easy(tmp_path):
    result = train_squares(tmp_path / "run", steps=40, batch=8, learning_rate=4e-3, freeze_encoder=False)
    assert result.test.miou > 0.8
    assert result.test.pixels == 6 * 32 * 31  # each image once, without the ignored column
    assert result.steps == 40
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["miou"] == result.test.miou
    log = (tmp_path / "run" / "log" / "from-step-0" / "metrics.csv").read_text()
    assert all(name in log for name in ("loss", "val_miou"))


def test_the_same_seed_gives_the_same_weights_and_another_others(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train_squares(tmp_path / name, seed=seed)
    assert are_equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not are_equal(weights(tmp_path / "one"), weights(tmp_path / "other"))


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    options = {"steps": 60, "batch": 2, "validations": 3}
    whole = train_squares(tmp_path / "whole", **options)
    with pytest.raises(zoo.errors.DataError, match=r"sample \d+ cannot be read: OSError: the disk is gone"):
        train_squares(tmp_path / "cut", squares(broken_at=READS + 58), **options)
    assert not (tmp_path / "cut" / "result.json").exists()
    resumed = train_squares(tmp_path / "cut", **options)
    assert are_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert are_equal(weights(tmp_path / "whole", "best"), weights(tmp_path / "cut", "best"))
    assert resumed.test == whole.test
    assert (tmp_path / "cut" / "log" / "from-step-25").is_dir()


def test_a_finished_run_is_not_done_again(tmp_path):
    first = train_squares(tmp_path / "run")
    data = squares()
    assert train_squares(tmp_path / "run", data) == first
    assert data.train.taken == READS


def interrupt():
    raise KeyboardInterrupt


def cancel():
    raise asyncio.CancelledError


def fail():
    raise LookupError("nothing there")


ENDINGS = {"SystemExit: 0": lambda: sys.exit(0), "KeyboardInterrupt": interrupt, "CancelledError": cancel, "LookupError": fail}


class Ending(torch.nn.Conv2d):
    """A model whose forward does what it is told, in the step that it is told."""

    def __init__(self, end, at=1):
        super().__init__(3, 2, 1)
        self.end, self.left = [end], [at]  # in lists, which a copy of the module shares

    def __deepcopy__(self, memo):
        return torch.nn.Conv2d(3, 2, 1)

    def forward(self, image):
        self.left[0] -= 1
        if not self.left[0]:
            self.end[0]()
        return super().forward(image)


def fitted(model, output, data=None, **settings):
    settings = {"steps": 3, "batch": 4, "validations": 0, **settings}
    return fit(model, data or squares(), TrainSettings(**settings), output)


@pytest.mark.parametrize(("words", "end"), ENDINGS.items())
def test_a_model_whose_code_ends_the_program_ends_the_training_with_an_error(tmp_path, words, end):
    with pytest.raises(
        zoo.errors.PluginError, match=rf"Ending fails after step 1 on images \(4, 3, 32, 32\): {words}"
    ) as caught:
        fitted(Ending(end, at=2), tmp_path / "run")
    assert caught.value.__cause__ is not None
    assert not (tmp_path / "run/result.json").exists()


@pytest.mark.parametrize(("words", "end"), ENDINGS.items())
def test_a_backward_pass_that_ends_the_program_ends_the_training_with_an_error(tmp_path, words, end):
    model = torch.nn.Conv2d(3, 2, 1)
    model.weight.register_hook(lambda gradient: end())
    with pytest.raises(LookupError if end is fail else zoo.errors.PluginError, match="nothing there" if end is fail else words):
        fitted(model, tmp_path / "run", memory_format="contiguous")


@pytest.mark.parametrize(("words", "end"), ENDINGS.items())
def test_a_data_set_whose_code_ends_the_program_is_an_error_that_names_the_sample(tmp_path, words, end):
    class Leaving(Squares):
        def __getitem__(self, index):
            return super().__getitem__(index) if index != 3 else end()

    with pytest.raises(zoo.errors.DataError, match=f"squares, test split: sample 3 cannot be read: {words}"):
        train_squares(tmp_path / "run", replace(squares(), test=Leaving(6, 0)))


def test_a_process_that_loads_samples_says_the_same_without_a_traceback(tmp_path):
    class Leaving(Squares):
        def __getitem__(self, index):
            return super().__getitem__(index) if torch.utils.data.get_worker_info() is None else sys.exit(0)

    with pytest.raises(zoo.errors.DataError, match=r"^squares, train split: sample \d+ cannot be read: SystemExit: 0\.$"):
        fitted(torch.nn.Conv2d(3, 2, 1), tmp_path / "run", replace(squares(), train=Leaving(24, 0)), workers=1)


@pytest.mark.usefixtures("heeds_interrupts")
def test_the_users_interrupt_is_one_and_the_next_is_heeded_too(tmp_path):
    model = Ending(lambda: signal.raise_signal(signal.SIGINT), at=2)
    with pytest.raises(KeyboardInterrupt):
        fitted(model, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert fitted(model, tmp_path / "run").steps == 3


def test_a_run_that_is_terminated_is_an_error_and_goes_on(tmp_path):
    model = Ending(lambda: signal.raise_signal(signal.SIGTERM), at=2)
    with pytest.raises(zoo.ZooError, match=r"ended by SIGTERM.*Run the same command again"):
        fitted(model, tmp_path / "run")
    assert fitted(model, tmp_path / "run").steps == 3


LEAVES = """
import signal, sys, torch, zoo
class Leaving(torch.nn.Module):
    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride, self.runs = pyramid[0].channels, pyramid[0].stride, 0
    def forward(self, maps):
        self.runs += 1
        if self.runs == 2:
            {end}
        return maps[0]
zoo.register_decoder("leaving", Leaving)
"""


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        ("sys.exit(0)", 2, "fails after step 1 on images (2, 3, 32, 32): SystemExit: 0."),
        ("raise KeyboardInterrupt", 2, "fails after step 1 on images (2, 3, 32, 32): KeyboardInterrupt"),
        (
            "signal.raise_signal(signal.SIGINT)",
            130,
            "Interrupted. Any checkpoint already written to run is kept",
        ),
    ],
)
@pytest.mark.usefixtures("fresh_registry", "heeds_interrupts")
def test_the_command_line_ends_with_a_status_that_says_what_ended_it(tmp_path, command_line, monkeypatch, end, status, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaving.py").write_text(LEAVES.format(end=end), encoding="utf-8")
    (tmp_path / "run.yaml").write_text(
        "encoder: timm:test_resnet\ndecoder: leaving\nlevels: 2\ndata: texture-mosaic\nsteps: 3\nbatch: 2\nsize: 32\n"
        "validations: 0\nmemory_format: contiguous\nplugins: [leaving.py]\n",
        encoding="utf-8",
    )
    found, _, stderr = command_line("train", "run.yaml", "--output", "run")
    assert (found, words in stderr) == (status, True), stderr


def test_a_frozen_encoder_stays_as_it_is(tmp_path):
    train_squares(tmp_path / "frozen", freeze_encoder=True)
    train_squares(tmp_path / "learned")
    train_squares(tmp_path / "thawed", freeze_encoder=1)
    before = weights(tmp_path / "frozen")
    learned, thawed = weights(tmp_path / "learned"), weights(tmp_path / "thawed")
    encoder = [key for key in before if key.startswith("model.encoder.")]
    assert not all(torch.equal(before[key], learned[key]) for key in encoder)
    assert not all(torch.equal(before[key], thawed[key]) for key in encoder)
    means = [key for key in encoder if key.endswith("running_mean")]
    assert all((before[key] == 0).all() for key in means)  # as they were made
    assert any((thawed[key] != 0).any() for key in means)


def test_what_was_trained_is_loaded_again(tmp_path):
    data = squares()
    result = train_squares(tmp_path / "run", data)
    model = zoo.load(result.checkpoint)
    assert not model.training
    assert model.pairing.encoder == ENCODER
    images = torch.stack([data.test[index][0] for index in range(6)])
    masks = torch.stack([data.test[index][1] for index in range(6)])
    with torch.no_grad():
        predicted = model(images).argmax(1)
    kept = masks != 255
    confusion = torch.bincount(masks[kept] * 2 + predicted[kept], minlength=4).view(2, 2)
    assert scores_of(confusion) == result.test


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist. Pass a checkpoint file"),
        (b"nonsense", "is damaged or not a checkpoint|may contain code"),
        ({"state_dict": {}}, "is not a checkpoint that this version"),
        ({"other": 1}, "is not a checkpoint that this version"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, told):
    path = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(zoo.errors.WeightsError, match=told):
        zoo.load(path)


def test_a_repository_without_the_hubs_prefix_is_told():
    with pytest.raises(zoo.errors.WeightsError, match="For a repository of the hub, pass hf-hub:someone/roads"):
        zoo.load("someone/roads")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    result = train_squares(tmp_path / "run", steps=2, validations=0)
    whole = result.checkpoint.read_bytes()
    result.checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(zoo.errors.WeightsError, match="damaged"):
        zoo.load(result.checkpoint)


def test_training_ends_early_where_nothing_gets_better(tmp_path):
    result = train_squares(tmp_path / "run", steps=60, validations=20, patience=2, learning_rate=1e-9, freeze_norms=True)
    assert result.steps < 60


def test_folders_of_other_runs_are_left_alone(tmp_path):
    train_squares(tmp_path / "run", steps=2, validations=0)
    with pytest.raises(zoo.errors.ConfigError, match=r"differ in settings\.seed\. Use another"):
        train_squares(tmp_path / "run", steps=2, validations=0, seed=5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words", encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match="does not contain a run of zoo"):
        train_squares(tmp_path / "mine")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lernrate": 1}, "lernrate: unknown key"),
        ({"stepps": 4}, "Did you mean 'steps'"),
        ({"steps": 0}, "greater than or equal to 1; found 0"),
        ({"steps": 4, "epochs": 4}, "give one of them"),
        ({"batch": "large"}, "batch"),
        ({"size": [0, 3]}, "a side must be a whole number"),
        ({"validations": 0, "patience": 3}, "patience counts validations"),
    ],
)
def test_wrong_settings_are_told(tmp_path, settings, told):
    with pytest.raises(zoo.errors.ConfigError, match=told):
        zoo.train(ENCODER, "unet-basic", squares(), output=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_images_of_several_sizes_need_a_size_to_train_on(tmp_path):
    data = squares()
    several = SegmentationData(
        name="several", classes=data.classes, train=data.train, validation=data.validation, test=data.test
    )
    with pytest.raises(zoo.errors.DataError, match="Set size to"):
        train_squares(tmp_path / "run", several)
    assert train_squares(tmp_path / "run", several, size=24, steps=2).test.pixels == 6 * 32 * 31


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (
            lambda image, mask: (image, mask + 5),
            "a mask has values that belong to no class: 5, 6. The indexes of the 2 classes are 0 to 1, and 255 is ignored",
        ),
        (
            lambda image, mask: (image, mask[:20]),
            r"a mask must be an int64 tensor .* found \(20, 32\) of torch.int64 for \(3, 32, 32\)",
        ),
        (lambda image, mask: (image, mask.float()), "a mask must be an int64 tensor"),
        (lambda image, mask: (image[:1], mask), "an image has 1 channels, but in_channels is 3"),
        (lambda image, mask: ((image * 255).byte(), mask), "an image must be a float tensor"),
        (
            lambda image, mask: (image.numpy(), mask),
            r"an image must be a float tensor \(channels, H, W\) with values from 0 to 1; found a ndarray",
        ),
    ],
)
def test_what_is_wrong_with_a_data_set_of_ones_own_is_told_first(tmp_path, spoilt, told):
    class Spoilt(Squares):
        def __getitem__(self, index):
            image, mask = super().__getitem__(index)
            return spoilt(image, mask.where(mask < 2, 0))

    data = replace(squares(), test=Spoilt(2, 0))
    with pytest.raises(zoo.errors.DataError, match=f"squares, test split: {told}"):
        train_squares(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_an_empty_part_is_told(tmp_path):
    with pytest.raises(zoo.errors.DataError, match="squares: the validation split is empty"):
        train_squares(tmp_path / "run", replace(squares(), validation=Squares(0, 0)))


def test_an_unknown_id_leaves_no_folder_that_is_in_the_way(tmp_path):
    with pytest.raises(zoo.errors.UnknownIdError):
        zoo.train("resnet81", "unet-basic", squares(), output=tmp_path / "run", steps=2)
    assert not (tmp_path / "run").exists()


def test_scores_are_those_of_the_confusion_matrix():
    scores = scores_of(torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    assert scores.iou == (6 / 9, 3 / 6, None)
    assert scores.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert scores.dice == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert scores.accuracy == pytest.approx(9 / 12)


def test_the_command_line_trains_and_tells(tmp_path, command_line):
    place = tmp_path / "run"
    asked = ["train", ENCODER, "unet-basic", "--data", "texture-mosaic", "--output", str(place)]
    settings = [
        part
        for text in ("steps=2", "batch=2", "size=32", "validations=0", "learning_rate=1e-3", "levels=2")
        for part in ("--set", text)
    ]
    status, stdout, stderr = command_line(*asked, *settings)
    assert status == 0
    assert stderr.startswith("Encoder weights: random\n")
    assert all(part in stdout for part in ("brick", "mean IoU", "last.ckpt"))
    assert zoo.load(place / "last.ckpt").pairing.classes == 3


def test_a_yaml_file_says_the_same_as_a_call(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        f"encoder: {ENCODER}\ndecoder: unet-basic\ndata: texture-mosaic\nsteps: 3\nbatch: 2\nsize: 32\nvalidations: 0\n"
        "learning_rate: 1e-3\ndecoder_options: {channels: [16, 16, 16, 16, 16]}\n",
        encoding="utf-8",
    )
    status, stdout, stderr = command_line("train", "run.yaml", "--set", "steps=2")
    assert status == 0, stderr
    assert "2 steps" in stdout
    settings = json.loads((tmp_path / "runs" / "run" / "settings.json").read_text(encoding="utf-8"))
    assert settings["settings"]["learning_rate"] == 1e-3
    assert settings["facts"]["pairing"]["decoder_options"] == {"channels": [16, 16, 16, 16, 16]}


def test_every_option_of_build_is_one_of_train_and_of_its_yaml_file(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        "levels": 3,
        "image_size": (32, 32),
        "adapters": "none",
        "size_policy": "resize",
        "aux_levels": 1,
        "gradient_checkpointing": "encoder",
        "encoder_options": {},
        "decoder_options": {"channels": [8, 8, 8]},
    }
    wanted = zoo.Pairing(ENCODER, "unet-basic", classes=2, **options)
    result = zoo.train(ENCODER, "unet-basic", squares(), output="called", steps=1, batch=2, validations=0, classes=2, **options)
    assert (result.pairing, zoo.load(result.checkpoint).pairing) == (str(wanted), wanted)
    lines = [f"{name}: {json.dumps(value)}\n" for name, value in options.items() if name != "size_policy"]
    (tmp_path / "run.yaml").write_text(
        f"encoder: {ENCODER}\ndecoder: unet-basic\ndata: texture-mosaic\nsteps: 1\nbatch: 2\nsize: 32\nvalidations: 0\n"
        + "".join(lines),
        encoding="utf-8",
    )
    status, _, stderr = command_line("train", "run.yaml", "--set", "size_policy=resize")
    assert status == 0, stderr
    assert zoo.load("runs/run/last.ckpt").pairing == replace(wanted, classes=3)


def test_other_classes_than_the_datas_are_refused(tmp_path):
    with pytest.raises(zoo.errors.ConfigError, match="classes is 5, but squares has 2"):
        train_squares(tmp_path / "run", classes=5)


@pytest.mark.parametrize("asked", [["--output", "elsewhere"], ["--set", "output=elsewhere"]])
def test_an_output_that_is_asked_for_goes_before_the_files(tmp_path, command_line, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        f"encoder: {ENCODER}\ndecoder: unet-basic\ndata: texture-mosaic\nsteps: 1\nbatch: 2\nsize: 32\nvalidations: 0\n"
        "levels: 2\noutput: here\n",
        encoding="utf-8",
    )
    status, _, stderr = command_line("train", "run.yaml", *asked)
    assert status == 0, stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run.yaml"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("encoder: resnet18\ndecoder: unet-basic\n", "data: this key is required"),
        ("encoder: resnet18\ndecoder: unet-basic\ndata: {source: x, clases: [a]}\n", "Did you mean 'classes'"),
        (
            "encoder: resnet18\ndecoder: unet-basic\ndata: nothing-there\n",
            "is not a folder, a task or a data set of torchvision",
        ),
        ("encoder: resnet18\nencoder: resnet18\n", "is given twice"),
        ("encoder: resnet18\ndecoder: unet-basic\ndata: texture-mosaic\nstep: 4\n", "Did you mean 'steps'"),
        ("encoder: resnet18\ndecoder: unet-basic\ndata: texture-mosaic\nplugins: [no.py]\n", "no.py does not exist"),
    ],
)
def test_what_is_wrong_in_a_yaml_file_is_told(tmp_path, command_line, content, told):
    (tmp_path / "run.yaml").write_text(content, encoding="utf-8")
    status, _, stderr = command_line("train", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run"))
    assert status
    assert told in stderr.replace("\n", " ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["resnet18", "unet-basic"], "resnet18 lacks --data"),
        (["resnet18"], "lacks a decoder's id and --data"),
        (["run.yaml", "unet-basic"], "--set decoder=unet-basic"),
        (["resnet18", "unet-basic", "--data", "texture-mosaic", "--set", "steps"], "a setting must be written NAME=VALUE"),
    ],
)
def test_what_the_command_line_lacks_is_told(command_line, asked, told):
    status, _, stderr = command_line("train", *asked)
    assert status
    assert told in stderr.replace("\n", " ")


def test_a_module_without_an_encoder_has_none_to_freeze(tmp_path):
    with pytest.raises(zoo.errors.OptionError, match="no attribute 'encoder'"):
        fit(torch.nn.Conv2d(3, 2, 1), squares(), TrainSettings(steps=2, freeze_encoder=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


SCRIPT = """
import sys
import zoo

if __name__ == "__main__":
    count = int(sys.argv[1])
    zoo.train(
        "timm:mobilenetv3_small_050", "unet-basic", "texture-mosaic", output=sys.argv[2], steps=12, batch=4 // count,
        devices=count, size=32, validations=2, freeze_norms=True, device="cpu", loss="cross-entropy", seed=1,
    )
"""


@pytest.mark.slow
def test_two_processes_come_to_what_one_does_with_the_doubled_batch(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    found = {}
    for count in (1, 2):
        asked = [sys.executable, str(tmp_path / "script.py"), str(count), str(tmp_path / str(count))]
        subprocess.run(asked, check=True, capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
        found[count] = json.loads((tmp_path / str(count) / "result.json").read_text(encoding="utf-8"))["test"]
    assert found[1]["pixels"] == found[2]["pixels"] == 48 * 96 * 96
    assert found[1]["miou"] == pytest.approx(found[2]["miou"], abs=0.01)
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for key in one:  # AdamW moves a weight by its gradient's sign, so that one near zero may go either way
        assert (one[key] - two[key]).float().abs().mean() < 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told_before_a_folder_is_made(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, stderr = command_line(
        *("train", ENCODER, "unet-basic", "--data", "texture-mosaic", "--output", "run", "--set", "device=cuda")
    )
    assert status == 2
    assert "device 'cuda' cannot be used here" in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_an_output_that_cannot_be_made_is_told(tmp_path, place):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(zoo.errors.OptionError, match=r"output .*file.* cannot be created or written to: .+\. Use a folder"):
        train_squares(tmp_path / place)


def test_a_decoder_of_a_plugin_file_is_trained_by_the_command(tmp_path, command_line, fresh_registry, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\nimport zoo\n\n\n@zoo.register_decoder('mine')\nclass Mine(torch.nn.Module):\n"
        "    out_channels, out_stride = 8, 4\n\n    def __init__(self, pyramid):\n        super().__init__()\n"
        "        self.map = torch.nn.Conv2d(pyramid[0].channels, 8, 1)\n        self.out_stride = int(pyramid[0].stride)\n\n"
        "    def forward(self, features):\n        return self.map(features[0])\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ("train", ENCODER, "mine", "--data", "texture-mosaic", "--plugin", "mine.py", "--output", "run")
    settings = [part for text in ("steps=1", "batch=2", "size=32", "validations=0") for part in ("--set", text)]
    status, out, errors = command_line(*arguments, *settings)
    assert status == 0, errors
    assert "x mine (classes=3), texture-mosaic, 1 steps" in out
