from __future__ import annotations

import pytest

from mnistjax.data.registry import DATASETS, get_dataset_info
from mnistjax.errors import UnknownNameError


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_describes_all_its_classes(name):
    info = get_dataset_info(name)
    assert info.name == name
    assert len(info.class_names) == len(set(info.class_names)) == info.num_classes
    assert info.image_shape == (28, 28, 1)
    assert info.train_size > info.test_size > 0


def test_emnist_classes_are_the_characters_of_the_published_mapping():
    by_class = get_dataset_info("emnist/byclass").class_names
    assert (by_class[0], by_class[10], by_class[35], by_class[36], by_class[61]) == tuple("0AZaz")
    for name in ("emnist/bymerge", "emnist/balanced"):
        names = get_dataset_info(name).class_names
        assert "".join(names) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
    letters = get_dataset_info("emnist/letters")
    assert (letters.num_classes, letters.class_names[0], letters.class_names[25]) == (26, "A", "Z")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'fashon_mnist'.*'fashion_mnist'"):
        get_dataset_info("fashon_mnist")
