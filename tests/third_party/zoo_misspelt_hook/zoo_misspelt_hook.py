"""Says `zoo_decodrs` for `zoo_decoders`."""

import zoo


@zoo.hookimpl
def zoo_decodrs():
    yield zoo.DecoderSpec(name="misspelt", factory="zoo_misspelt_hook:Decoder")
