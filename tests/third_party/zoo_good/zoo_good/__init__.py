"""A good plugin: one encoder, one decoder, told as plain data."""

import zoo

zoo_api = 1

MAPS = tuple(zoo.plugin.FeatureMap(name=f"step{index}", channels=8 * index, stride=2**index) for index in (1, 2, 3))


@zoo.plugin.hookimpl
def zoo_encoders():
    yield zoo.plugin.EncoderSpec(
        name="steps",
        factory="zoo_good.modules:Steps",
        pyramid=MAPS,
        options=(),
        source="the tests of segmentation-zoo",
        license="MIT",
    )


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(
        name="sum",
        factory="zoo_good.modules:Sum",
        needs=zoo.Needs(min_levels=2),
        options=(zoo.plugin.Option(name="width", default=16, summary="channels of every map"),),
        source="the tests of segmentation-zoo",
        license="MIT",
    )
