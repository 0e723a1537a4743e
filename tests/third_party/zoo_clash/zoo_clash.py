"""Gives `good:sum` as well, with another factory."""

import zoo


@zoo.hookimpl
def zoo_decoders():
    yield zoo.DecoderSpec(name="sum", factory="zoo_clash:Sum")
