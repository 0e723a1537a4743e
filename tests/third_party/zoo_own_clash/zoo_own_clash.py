"""Gives `unet:unet-basic` as well, and says that it is canonical."""

import zoo


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(name="unet-basic", factory="zoo_own_clash:Decoder", canonical=True)
