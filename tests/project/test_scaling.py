"""What devices exchange, and what is concluded from it, is counted and computed as documented."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import mnistjax

# The benchmarks are scripts: Python finds what lies beside one when it starts it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import communication
import conditions
import throughput


def tiny_images(count):
    images = np.zeros((count, 28, 28, 1), np.uint8)
    return mnistjax.Split(images, np.zeros(count, np.int32))


def test_what_devices_exchange_is_read_from_the_program():
    program = """
      %all-reduce.1 = (f32[2,3]{1,0}, f32[4]{0}, pred[8]{0}) all-reduce(%a, %b, %c), channel_id=1
      ROOT %x = bf16[10]{0} all-gather(%y), dimensions={0}
      %z = s32[] all-reduce-start(%w)
      %fusion = f32[100]{0} fusion(%all-reduce.1)
    """
    found = communication.collectives(program)
    assert found == {"all-reduce": [4 * 10 + 8, 4], "all-gather": [20]}


def test_a_step_exchanges_its_gradients_and_sums_and_nothing_else():
    case = throughput.make_case(
        mnistjax.get_recipe("mlp"), 4, 8, tiny_images(64), throughput.Arguments()
    )
    row = communication.measure(case)
    assert set(row["collectives"]) == {"all-reduce"}
    assert row["parameter_bytes"] == 4 * 79_510
    # The confusion matrix, the loss, the count, and whether a label is out of range.
    assert row["bytes_per_step"] - row["parameter_bytes"] == 4 * (100 + 2) + 1
    assert len(conditions.table([row], communication.COLUMNS).splitlines()) == 3


def test_the_estimate_is_that_of_its_parts():
    machine = communication.Machine("m", 8, 1e12, 1e9, 1e-6, 1e-4)
    assert machine.exchange_seconds(4000, 3) == pytest.approx(7e-6 + 3 * 6e-6)
    row = {"recipe": "mlp", "batch_size": 1000, "flops_per_image": 1e6, "bytes_per_step": 4000}
    row |= {"collectives": {"all-reduce": 3}}
    found = communication.estimate(row, machine)
    compute, fixed = 1e9 / 1e11, 1e-4 + 25e-6
    assert found["strong"] == pytest.approx((compute + 1e-4) / (8 * (compute / 8 + fixed)))
    assert found["weak"] == pytest.approx((compute + 1e-4) / (compute + fixed))
    assert found["balanced_batch"] == pytest.approx(fixed / 1e-5)
    alone = dataclasses.replace(machine, devices=1)
    assert communication.estimate(row, alone)["strong"] == 1


@pytest.mark.parametrize(
    ("scaling", "sizes", "efficiencies"),
    [("weak", (4, 4, 4), (1, 0.5, 0.25)), ("strong", (4, 2, 1), (1, 0.5, 0.25))],
)
def test_efficiency_is_relative_to_the_first_number_of_devices(scaling, sizes, efficiencies):
    rows = [
        {
            **{"recipe": recipe, "phase": "training", "feed": "device", "scaling": scaling},
            **{"devices": devices, "batch_size_per_device": size},
            "images_per_second_per_device": rate / devices,
        }
        for recipe, rate in (("mlp", 100), ("cnn", 10))
        for devices, size in zip((1, 2, 4), sizes, strict=True)
    ]
    throughput.add_efficiency(rows)
    assert [row["efficiency"] for row in rows] == [*efficiencies, *efficiencies]
