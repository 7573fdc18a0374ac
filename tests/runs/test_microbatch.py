"""The number of images at a time follows from the caches that the system tells of."""

import jax
import numpy as np
import pytest

import mnistjax
from mnistjax.runs import microbatch


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Writes what Linux says about caches."""
    microbatch.cache_sizes.cache_clear()
    monkeypatch.setattr(microbatch, "_CACHES", tmp_path)

    def write(*rows):
        for index, row in enumerate(rows):
            folder = tmp_path / f"index{index}"
            folder.mkdir()
            for name, value in zip(("level", "type", "size"), row, strict=True):
                (folder / name).write_text(value + "\n")

    yield write
    microbatch.cache_sizes.cache_clear()


def test_sizes_of_data_caches_are_read(caches):
    caches(("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "1M"))
    assert microbatch.cache_sizes() == {"L1": 32 << 10, "L2": 1 << 20}


@pytest.mark.parametrize("rows", [(), [("2", "Unified", "many")]])
def test_where_the_system_does_not_tell_a_common_size_is_assumed(caches, rows):
    caches(*rows)
    assert microbatch.cache_sizes() == {}
    kept = 1 << 15
    assumed = mnistjax.runs.microbatch_for_cache(kept)
    assert assumed == 8 * (1 << 20) * 2 ** int(np.log2(microbatch._cores())) // kept


@pytest.mark.parametrize(
    ("size", "cores", "images"),
    [("1M", 1, 64), ("1M", 2, 128), ("2M", 1, 128), ("1M", 3, 128), ("512K", 1, 32), ("1K", 1, 32)],
)
def test_what_is_kept_takes_eight_times_the_second_level_of_cache(
    caches, monkeypatch, size, cores, images
):
    caches(("1", "Data", "32K"), ("2", "Unified", size), ("3", "Unified", "99M"))
    monkeypatch.setattr(microbatch, "_cores", lambda: cores)
    kept = 1 << 17
    assert mnistjax.runs.microbatch_for_cache(kept) == images
    assert mnistjax.runs.microbatch_for_cache(1.51 * kept) == max(32, images // 2)


def test_gpus_take_whole_batches(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert mnistjax.runs.microbatch_for_cache(1e12) > 1e9


def test_a_run_in_pieces_ends_where_a_run_of_whole_batches_ends():
    ends = []
    for size in (7, 64):
        config = mnistjax.TrainConfig(
            model="mlp", optimizer="momentum", steps=10, batch_size=64, microbatch_size=size
        )
        result = mnistjax.fit(config, mnistjax.load_dataset("digits"))
        ends.append(jax.tree.leaves(result.trained.variables["params"]))
    for piecewise, whole in zip(*ends, strict=True):
        np.testing.assert_allclose(piecewise, whole, rtol=2e-4, atol=2e-5)
        assert np.any(piecewise != whole)
