"""`python -m zoo`: the command line without the installed script."""

from zoo.cli import main

main()
