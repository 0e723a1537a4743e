"""Gives `unet:unet-basic` as well."""

import zoo


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(name="unet-basic", factory="zoo_own_clash:Decoder")
