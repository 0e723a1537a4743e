"""The project's own encoders and decoders keep their contracts; one architecture of each of timm's families does as well."""

from __future__ import annotations

import gc

import pytest
from timm_families import FAMILIES

import zoo
from zoo.testing import ConformanceError, check_encoder, parametrize_with_checks

pytestmark = pytest.mark.usefixtures("one_thread")

KNOWN: dict[str, dict[str, str]] = {
    "csatv2": {"takes_other_input_channels": "timm's first layer converts colors, and is made for three channels"},
    "gemma4_vit": {"exports": "timm's forward asks for a tensor's value"},
}
"""What of timm's own code does not keep a clause of the contract, by family: that check must fail, and no other may."""


SMP_FAMILIES = (
    "resnet18", "dpn68", "vgg11_bn", "se_resnet50", "densenet121", "inceptionresnetv2", "inceptionv4", "efficientnet-b0",
    "mobilenet_v2", "xception", "timm-efficientnet-b0", "timm-skresnet18", "mit_b0", "mobileone_s0",
)  # fmt: skip


@parametrize_with_checks(["resnet18", *zoo.list_decoders("unet:*"), "smp:unet", "smp:fpn"])
def test_conformance(check):
    check()


@pytest.mark.slow
@parametrize_with_checks(zoo.list_decoders("smp:*"))
def test_every_decoder_of_smps_passes_every_check(check):
    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMP_FAMILIES)
def test_an_encoder_of_each_of_smps_families_passes_every_check(name):
    assert len(check_encoder(f"smp:{name}").ran) >= 20
    gc.collect()


def report_of(id):
    try:
        return check_encoder(id)
    except ConformanceError as error:
        return error.report


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_architecture_of_each_family_passes_every_check(family):
    if family == "deepseek_vit":
        pytest.skip("its smallest has 412 million parameters, of which the kit holds several copies: 11 GB")
    report = report_of(f"timm:{FAMILIES[family]}")
    assert {failure.check for failure in report.failed} == set(KNOWN.get(family, {})), str(ConformanceError(report))
    assert len(report.ran) >= 20
    gc.collect()
