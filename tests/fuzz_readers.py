"""Fuzzes a reader with atheris, which is guided by the branches that an input takes.

    pip install atheris
    python tests/fuzz_readers.py csv -max_total_time=300

The first word is a key of `READERS`; the others are options of libFuzzer, `-rss_limit_mb` among
them. An input that makes a reader raise anything but an error of this package is written to a file.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Fuzzes until the time is over or an input is found."""
    import atheris

    with atheris.instrument_imports(include=["mnistjax", "readers"]):
        from readers import READERS, refuse_or_read

    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in READERS:
        sys.exit(f"expected one of {', '.join(READERS)}, found {name!r}")
    atheris.Setup(sys.argv, lambda content: refuse_or_read(name, content) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
