"""Entry point of the command line, `python -m mnistjax`."""

from mnistjax.cli import main

main()
