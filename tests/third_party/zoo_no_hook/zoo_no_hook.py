"""Has the hook's function, and forgot to mark it."""

import zoo


def zoo_decoders():
    yield zoo.plugin.DecoderSpec(name="unmarked", factory="zoo_no_hook:Decoder")
