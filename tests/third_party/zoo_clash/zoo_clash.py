"""Gives `good:sum` as well, with another factory."""

import zoo


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(name="sum", factory="zoo_clash:Sum")
