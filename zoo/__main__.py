"""`python -m zoo` and the `zoo` script: the command line, started without collecting garbage that start-up does not make."""

from __future__ import annotations

import gc
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line; `zoo bench`, which runs long, turns the collector on again."""
    gc.disable()
    from zoo.cli import main as run

    run()


if __name__ == "__main__":
    main()
