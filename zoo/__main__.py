"""Start the command line, for `python -m zoo` and the `zoo` script.

The garbage collector is off during imports, which create hardly any garbage.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line. The garbage collector is off during imports; each command turns it back on."""
    gc.disable()
    errors = sys.stderr
    with contextlib.suppress(OSError, AttributeError):  # there may be no stderr; a plugin can close only this duplicate
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    from zoo.cli import main as run

    try:
        run()
    finally:  # text that plugins print when the interpreter ends is not part of the answer
        with contextlib.suppress(OSError, AttributeError, ValueError):
            sys.stdout.flush()
            os.dup2(2, 1)
        if sys.stderr is not errors:
            sys.stderr.close()
            sys.stderr = errors


if __name__ == "__main__":
    main()
