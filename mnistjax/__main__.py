"""`python -m mnistjax`: the command line."""

from mnistjax.cli import main

main()
