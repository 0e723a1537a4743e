"""Yields a name where a spec is wanted."""

import zoo


@zoo.plugin.hookimpl
def zoo_decoders():
    yield "my-decoder"
