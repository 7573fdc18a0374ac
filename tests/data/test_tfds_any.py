"""Any data set that TFDS has prepared as array_record can be loaded, whoever wrote its builder."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import assert_same_examples
from PIL import Image

from mnistjax.data.load import load_dataset
from mnistjax.errors import DataFormatError, DatasetNotFoundError


def build_rgb(folder, images, *, split="test"):
    """A data set that TFDS prepares with a builder of the test's own, without TensorFlow."""
    # Imported here: it takes a second.
    import tensorflow_datasets as tfds

    class Stamps(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
            label = tfds.features.ClassLabel(names=["red", "green", "blue"])
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            splits = {"train": self._generate_examples(0)}
            return splits | ({split: self._generate_examples(1)} if split else {})

        def _generate_examples(self, offset):
            for index, image in enumerate(images):
                yield index, {"image": Image.fromarray(image), "label": (index + offset) % 3}

    builder = Stamps(data_dir=str(folder))
    builder.download_and_prepare(file_format="array_record")


COLORS = np.random.default_rng(3).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_any_data_set_of_images_of_one_size_is_loaded(tmp_path, split):
    build_rgb(tmp_path, COLORS, split=split)
    dataset = load_dataset("tfds:stamps", data_dir=tmp_path)
    assert dataset.info.class_names == ("red", "green", "blue")
    assert (dataset.info.name, dataset.info.image_shape) == ("tfds:stamps", (5, 4, 3))
    assert_same_examples((dataset.train.images, dataset.train.labels), (COLORS, thirds(0)))
    assert_same_examples((dataset.test.images, dataset.test.labels), (COLORS, thirds(1)))


def test_without_another_split_a_fifth_of_every_class_is_held_out(tmp_path):
    build_rgb(tmp_path, np.concatenate([COLORS, COLORS]), split=None)
    dataset = load_dataset("tfds:stamps", data_dir=tmp_path)
    assert sorted(np.bincount(dataset.train.labels)) == [4, 5, 5]
    assert len(dataset.test) == 4


def thirds(offset):
    return (np.arange(9, dtype=np.int32) + offset) % 3


def test_images_that_differ_in_size_are_one_line(tmp_path):
    build_rgb(tmp_path, [*COLORS[:4], COLORS[4][:3]])
    with pytest.raises(DataFormatError, match=r"images of \(\d, 4, 3\) and .*not of one size"):
        load_dataset("tfds:stamps", data_dir=tmp_path)


def test_another_format_than_the_one_that_is_read_is_named(tmp_path):
    folder = tmp_path / "stamps" / "1.2.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    expected = "as array_record in .*, found it as tfrecord alone: `tfds build stamps"
    with pytest.raises(DatasetNotFoundError, match=expected):
        load_dataset("tfds:stamps", data_dir=tmp_path)


def test_a_data_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="`tfds build cifar10 --file_format=array_rec"):
        load_dataset("tfds:cifar10", data_dir=tmp_path)
