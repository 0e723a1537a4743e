"""The losses of training: their values, their class weights, and what is wrong with a loss of one's own."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

import zoo
from zoo.training.entries import LOSSES
from zoo.training.losses import make_loss
from zoo.training.settings import TrainSettings

IGNORED = 255
OWN = __name__


def loss_of(loss, **options):
    return make_loss(TrainSettings(loss=loss).loss_terms, ignored=IGNORED, **options)


def batch(classes=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 8, 8, generator=generator).requires_grad_()
    masks = torch.randint(0, classes, (2, 8, 8), generator=generator)
    masks[0, :3] = IGNORED
    return logits, masks


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("class_weights", [None, (1.0, 2.0, 0.5)])
def test_ignored_pixels_change_nothing(name, class_weights):
    if class_weights and name in ("lovasz", "mcc"):
        class_weights = None
    logits, masks = batch()
    loss = loss_of(name, class_weights=class_weights)
    value = loss(logits, masks)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert not gradient[0, :, :3].any()
    changed = logits.detach().clone()
    changed[0, :, :3] = 30
    torch.testing.assert_close(loss(changed, masks), value.detach())


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_ignored_pixels_alone_has_no_loss_and_no_gradient(name):
    logits, masks = batch()
    value = loss_of(name)(logits, torch.full_like(masks, IGNORED))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_has_the_lowest_loss(name):
    _, masks = batch()
    perfect = 8.0 * (2 * F.one_hot(masks.where(masks != IGNORED, 0), 3) - 1).permute(0, 3, 1, 2)
    loss = loss_of(name)
    assert loss(perfect, masks) < 0.9 * loss(-perfect, masks)
    if name != "soft-cross-entropy":
        assert loss(perfect, masks) < 1e-3


def test_cross_entropy_with_class_weights_is_pytorchs():
    logits, masks = batch()
    weights = (1.0, 2.0, 0.5)
    expected = F.cross_entropy(logits, masks, torch.tensor(weights), ignore_index=IGNORED)
    torch.testing.assert_close(loss_of("cross-entropy", class_weights=weights)(logits, masks), expected)
    smoothed = F.cross_entropy(logits, masks, ignore_index=IGNORED, label_smoothing=0.2)
    soft = [{"loss": "soft-cross-entropy", "options": {"smooth_factor": 0.2}}]
    torch.testing.assert_close(loss_of(soft)(logits, masks), smoothed)


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("dice", "DiceLoss", {"smooth": 0.5}),
        ("jaccard", "JaccardLoss", {}),
        ("tversky", "TverskyLoss", {"alpha": 0.3, "beta": 0.7}),
        ("focal", "FocalLoss", {"gamma": 3.0}),
        ("lovasz", "LovaszLoss", {"per_image": True}),
    ],
)
def test_the_options_are_those_of_smp(name, theirs, options):
    logits, masks = batch()
    expected = getattr(smp.losses, theirs)("multiclass", ignore_index=IGNORED, **options)(logits, masks)
    torch.testing.assert_close(loss_of([{"loss": name, "options": options}])(logits, masks), expected)


def test_mcc_of_two_classes_is_smps_of_the_foreground():
    logits, masks = batch(classes=2)
    kept = masks != IGNORED
    probability = logits.softmax(dim=1)[:, 1][kept]
    expected = smp.losses.MCCLoss()(probability[None], masks[kept].float()[None])
    torch.testing.assert_close(loss_of("mcc")(logits, masks), expected, atol=1e-5, rtol=1e-4)


def test_a_sum_is_weighted():
    logits, masks = batch()
    parts = {name: loss_of(name)(logits, masks) for name in ("cross-entropy", "dice", "focal")}
    torch.testing.assert_close(loss_of("cross-entropy+dice")(logits, masks), parts["cross-entropy"] + parts["dice"])
    torch.testing.assert_close(loss_of({"focal": 2, "dice": 0.5})(logits, masks), 2 * parts["focal"] + 0.5 * parts["dice"])
    terms = ["dice", {"loss": "focal", "weight": 3.0}]
    torch.testing.assert_close(loss_of(terms)(logits, masks), parts["dice"] + 3 * parts["focal"])


def mean_of_squares(logits, masks):
    return (logits**2).mean()


class Scaled(torch.nn.Module):
    """A loss with an argument."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, logits, masks):
        return self.scale * mean_of_squares(logits, masks)


def without_gradient(logits, masks):
    return logits.detach().mean()


def one_per_pixel(logits, masks):
    return F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none")


def fails(logits, masks):
    raise RuntimeError("no idea")


def test_a_function_of_ones_own_is_given_itself_or_by_its_path(tmp_path):
    logits, masks = batch()
    expected = (logits**2).mean()
    for loss in (mean_of_squares, f"{OWN}.mean_of_squares", f"{OWN}:mean_of_squares"):
        torch.testing.assert_close(loss_of(loss)(logits, masks), expected)
    own = [{"loss": f"{OWN}:Scaled", "options": {"scale": 3}}, {"loss": "dice", "weight": 2.0}]
    torch.testing.assert_close(loss_of(own)(logits, masks), 3 * expected + 2 * loss_of("dice")(logits, masks))
    (tmp_path / "mine.py").write_text("def half(logits, masks):\n    return logits.mean() / 2\n")
    torch.testing.assert_close(loss_of(f"{tmp_path}/mine.py:half")(logits, masks), logits.mean() / 2)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("dyce", "'dyce' is not a loss. Did you mean 'dice'?"),
        ("dice+", "'' is not a loss"),
        ({}, "at least one loss is required"),
        ({"focal": "much"}, "weight: Input should be a valid number; found 'much'"),
        ({"focal": -1}, "weight: Input should be greater than 0"),
        ([{"loss": "dice", "gamma": 1}], "gamma: Extra inputs are not permitted"),
        (3, "a loss must be a name such as dice"),
        (lambda logits, masks: logits.mean(), "a loss must be a function or a class at the top level of a module"),
    ],
)
def test_what_is_not_a_loss_is_refused(tmp_path, loss, message):
    with pytest.raises(zoo.errors.ConfigError, match="loss: ") as error:
        zoo.train("timm:test_resnet", "unet-basic", "texture-mosaic", output=tmp_path / "run", loss=loss)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ([{"loss": "tversky", "options": {"alfa": 1}}], "OptionError", "no option 'alfa'. Did you mean 'alpha'?"),
        ([{"loss": "dice", "options": {"mode": "binary"}}], "OptionError", "no option 'mode'"),
        (
            [{"loss": "soft-cross-entropy", "options": {"smooth_factor": 2}}],
            "OptionError",
            "of at least 0 and below 1; found 2",
        ),
        ([{"loss": "mcc", "options": {"eps": 0}}], "OptionError", "above 0; found 0"),
        ("no_such_package.losses:mine", "OptionError", "there is no module no_such_package"),
        (f"{OWN}:meen_of_squares", "OptionError", "Did you mean 'mean_of_squares'?"),
        (f"{OWN}:IGNORED", "OptionError", "must be a function of logits and masks; found a int"),
        ([{"loss": f"{OWN}:Scaled"}], "PluginError", "could not be created with the options {}"),
        ([{"loss": f"{OWN}:fails", "options": {"a": 1}}], "OptionError", "is a function, which has no options"),
        ("nowhere.py:loss", "PluginError", "nowhere.py:loss names a file that does not exist"),
    ],
)
def test_what_cannot_be_made_into_a_loss_is_refused(loss, error, message):
    with pytest.raises(getattr(zoo.errors, error)) as found:
        loss_of(loss)
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, "fails on logits (2, 3, 8, 8) and masks (2, 8, 8): RuntimeError: no idea"),
        (one_per_pixel, "must return a scalar tensor, such as the mean over the pixels; found (2, 8, 8) of torch.float32"),
        (without_gradient, "returns a value without a gradient"),
    ],
)
def test_what_a_loss_of_ones_own_does_wrong_is_reported_as_its_own(function, message):
    with pytest.raises(zoo.errors.PluginError) as error:
        loss_of(function)(*batch())
    assert message in str(error.value)
