"""Needs a library that is not there."""

import no_such_library_at_all  # noqa: F401
