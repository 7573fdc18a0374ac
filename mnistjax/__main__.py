"""Entry point of the command line, `mnistjax` or `python -m mnistjax`."""

from mnistjax.signals import exits_on_signals


def main() -> None:
    """Runs the command line, and ends without a traceback when a signal arrives."""
    with exits_on_signals():
        # Imported here, because jax takes a second and a signal may arrive meanwhile.
        from mnistjax.cli import main as run

        run()


if __name__ == "__main__":
    main()
