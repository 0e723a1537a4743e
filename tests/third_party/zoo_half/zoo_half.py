"""Yields one good spec and then raises."""

import zoo


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(name="first", factory="zoo_half:Decoder")
    raise ValueError("half of it is all there is")
