"""Yields a name where a spec is wanted."""

import zoo


@zoo.hookimpl
def zoo_decoders():
    yield "my-decoder"
