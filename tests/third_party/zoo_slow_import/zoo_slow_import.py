"""Fine, but takes a second to import."""

import time

import zoo

time.sleep(1)


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(
        name="late", factory="zoo_slow_import:Decoder", source="the tests of segmentation-zoo", license="MIT"
    )
