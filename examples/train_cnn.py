"""Trains a convolutional network on MNIST, from pixels to test accuracy.

Command:   python examples/train_cnn.py
Expected:  99.42 +- 0.01 % on the test images (3 seeds), in 35 seconds on two CPU cores, 5 of them
           for compilation; then about ten more for report.html, which shows what was learned.

Every setting is a flag (`--epochs 3 --learning-rate 0.002`); `--help` lists them. The data is
searched in `--data-dir`, MNISTJAX_DATA_DIR and the folder of TensorFlow Datasets, and downloaded if
none of them has it.
"""

import mnistjax
from mnistjax.cli import one_line_errors, parse_run_arguments

CONFIG = mnistjax.TrainConfig(
    model="cnn",  # two convolutions, 34,826 parameters
    epochs=8,
    batch_size=128,
    optimizer="adam",
    learning_rate=4e-3,
    schedule="one-cycle",  # up, then down to zero: most of the accuracy comes at the end
    # Each epoch shifts, rotates and scales every image by small random amounts, so that the network
    # also reads pictures that were not made like MNIST's.
    shift=2,
    rotate=10.0,
    scale=0.1,
    validation_fraction=0.1,
)


@one_line_errors
def main() -> None:
    """Loads the data, trains, and prints what to do next."""
    arguments = parse_run_arguments(CONFIG)
    config = arguments.config

    # Loads programs that were compiled before, and connects several processes with --distributed.
    with arguments.environment():
        # uint8 images [N, 28, 28, 1] and int32 labels [N], in a training and a test split.
        dataset = mnistjax.load_dataset(config.dataset, data_dir=arguments.data_dir)

        # Splits off validation images, compiles whole epochs, trains, and measures on the test
        # images. The callbacks draw a progress bar, and write report.html after all other files.
        fitted = mnistjax.fit(
            config,
            dataset,
            workdir=arguments.workdir,
            overwrite=arguments.overwrite,
            resume=arguments.resume,
            checkpoints=arguments.checkpoints,
            devices=arguments.devices,
            images=arguments.images,
            callbacks=arguments.callbacks(),
        )
    print(f"measure the saved weights again with: mnistjax evaluate {fitted.workdir}")
    if arguments.report:
        print(f"see what it learned: open {fitted.workdir}/report.html in a browser")


if __name__ == "__main__":
    main()
