"""How many pictures of digits and codes are read right, and how many of other things are doubted.

    python benchmarks/pictures.py runs/bn --json benchmarks/results/pictures.jsonl

The pictures are made of MNIST's test images by `tests/scenes.py`, and of letters, scribbles and
blank paper by `tests/strange_pictures.py`; nothing was chosen on them.
"""

import dataclasses
import string
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from conditions import write_json_lines

import mnistjax
from mnistjax.cli import one_line_errors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import scenes
import strange_pictures as strange

CODES = ("even", "form", "table", "shadow", "whiteboard", "receipt", "sticky note")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to read."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of the network."""
    count: int = 300
    """Pictures of digits of each kind."""
    codes: int = 60
    """Pictures of five-digit codes of each kind."""
    seed: int = 100
    """Seed of the pictures."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File of JSON lines, one for each kind; none if not given."""


@one_line_errors
def main(arguments: Arguments) -> None:
    """Reads all kinds, prints a line for each, and writes the file."""
    trained = mnistjax.load_weights(arguments.run)
    test = mnistjax.load_dataset("mnist", data_dir=arguments.data_dir).test
    rows = []
    for kind in scenes.SCENES:
        row = read_digits(trained, kind, test, arguments)
        print(
            f"digits, {kind:12} {row['right']:6.1%} right, warned of {row['right_warned']:6.1%} of "
            f"these and of {row['wrong_warned']} of {row['wrong']} wrong ones",
            flush=True,
        )
        rows.append(row)
    for kind, pictures in make_strangers(arguments).items():
        warned = [bool(found) for found in mnistjax.predict(trained, pictures).warnings]
        print(f"no digit, {kind:10} warned of {np.mean(warned):6.1%}", flush=True)
        recipe, count = trained.config.recipe, len(pictures)
        row = {"reads": "no digits", "kind": kind, "recipe": recipe, "pictures": count}
        rows.append(row | {"seed": arguments.seed, "warned": float(np.mean(warned))})
    for kind in CODES:
        row = read_codes(trained, kind, test, arguments)
        print(f"codes,  {kind:12} {row['right']:6.1%} right", flush=True)
        rows.append(row)
    if arguments.json:
        write_json_lines(arguments.json, rows)


def make_strangers(arguments: Arguments) -> dict[str, list]:
    """Makes pictures of what is no digit, about `count` of each kind."""
    unlike = "".join(letter for letter in string.ascii_letters if letter not in strange.ALIKE)
    characters = {
        "letters": unlike,
        "all letters": string.ascii_letters,
        "symbols": strange.SYMBOLS,
    }
    return {
        **{
            kind: strange.letters(arguments.seed, text * max(1, arguments.count // len(text)))
            for kind, text in characters.items()
        },
        "scribbles": strange.scribbles(arguments.count, arguments.seed),
        "blank": strange.blank_papers(arguments.count, arguments.seed),
    }


def read_digits(
    trained: mnistjax.TrainedModel, kind: str, test: mnistjax.Split, arguments: Arguments
) -> dict:
    """Reads pictures of one digit each; the shares are of all, and of the right ones."""
    images, labels = test.images[: arguments.count], test.labels[: arguments.count]
    found = mnistjax.predict(trained, scenes.digit_scenes(kind, images, arguments.seed))
    right = found.labels == labels
    warned = np.array([bool(warnings) for warnings in found.warnings])
    return {
        "reads": "digits",
        "kind": kind,
        "recipe": trained.config.recipe,
        "pictures": len(labels),
        "seed": arguments.seed,
        "right": float(right.mean()),
        "right_warned": float(warned[right].mean()),
        "wrong": int((~right).sum()),
        "wrong_warned": int(warned[~right].sum()),
    }


def read_codes(
    trained: mnistjax.TrainedModel, kind: str, test: mnistjax.Split, arguments: Arguments
) -> dict:
    """Reads pictures of five-digit codes; a code is right if it is read without any error."""
    used = slice(0, 5 * arguments.codes)
    codes = scenes.code_scenes(kind, test.images[used], test.labels[used], arguments.seed)
    right = [mnistjax.read_digits(trained, picture).text == text for picture, text in codes]
    return {
        "reads": "codes",
        "kind": kind,
        "recipe": trained.config.recipe,
        "pictures": len(codes),
        "seed": arguments.seed,
        "right": float(np.mean(right)),
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
