"""Made for a later plugin API, and marks a hook that this one does not know."""

import zoo

zoo_api = 99


@zoo.plugin.hookimpl
def zoo_losses():
    yield "dice"
