"""Says `zoo_decodrs` for `zoo_decoders`."""

import zoo


@zoo.plugin.hookimpl
def zoo_decodrs():
    yield zoo.plugin.DecoderSpec(name="misspelt", factory="zoo_misspelt_hook:Decoder")
