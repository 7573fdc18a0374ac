"""The peers of the speed comparison do the same work, take turns, and are told apart if not."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import mnistjax

# The benchmarks are scripts: Python finds what lies beside one when it starts it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "workers"))

import conditions
import networks
import peer_processes
import peers
import readme
import stock_flax

CONDITIONS = {"versions", "device", "platform", "processor", "cores", "threads", "command"}


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_peers_have_the_same_network(name):
    network, images = networks.NETWORKS[name], jnp.zeros((1, 28, 28, 1))
    ours = mnistjax.create_model(network.model)
    params = jax.eval_shape(ours.init, jax.random.key(0), images)["params"]
    stock = stock_flax.make_network(json.loads(json.dumps(network.layers)), "float32")
    variables = jax.eval_shape(partial(stock.init, train=False), jax.random.key(0), images)
    shapes = [
        sorted(leaf.shape for leaf in jax.tree.leaves(tree))
        for tree in (params, variables["params"])
    ]
    assert shapes[0] == shapes[1]


@pytest.fixture(scope="module")
def peer_rows(tmp_path_factory):
    """Two peers that are installed, and one that is not, on the embedded digits."""
    absent = tmp_path_factory.mktemp("workers") / "absent.py"
    absent.write_text(
        f"import sys; sys.path.append({str(peer_processes.WORKERS)!r})\n"
        "from protocol import serve\n"
        "def build(task):\n    import a_framework_that_nobody_has\n"
        "serve(build)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(peer_processes.PEERS, "absent", (str(absent), ""))
        arguments = peers.Arguments(
            peers=("mnistjax", "absent", "flax-loop"),
            dataset="digits",
            rounds=2,
        )
        setting = peers.Setting("softmax", batch_size=100)
        return peers.compare(arguments, setting, tmp_path_factory.mktemp("peers"))


def test_peers_rows(peer_rows):
    found = [(row["peer"], row["phase"]) for row in peer_rows]
    phases = ("training", "inference")
    assert found == [(peer, phase) for phase in phases for peer in ("mnistjax", "flax-loop")]
    for row in peer_rows:
        assert set(row) >= CONDITIONS | {"compile_seconds", "peak_memory_bytes", "how"}
        assert row["images_per_round"] == (1400 if row["phase"] == "training" else 360)
        assert len(row["round_seconds_runs"]) == len(row["reference_is_faster_by_runs"]) == 2
        assert row["parameters"] == 7850
        if row["peer"] == row["reference"]:
            assert row["reference_is_faster_by"] == 1.0
    assert peers.disagreements(peer_rows, 5.0) == []
    assert len(conditions.table(peer_rows, peers.COLUMNS).splitlines()) == 6
    assert len(readme.peers_table(peer_rows).splitlines()) == 4
    summary = readme.peers_summary_table(peer_rows).splitlines()
    assert len(summary) == 3
    assert "flax-loop" in summary[-1]


def test_speed_chart_is_reproducible(peer_rows, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        readme.draw_speed_chart(peer_rows, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "flax-loop" in (tmp_path / "a.svg").read_text()


def test_disagreement_is_told():
    row = {"peer": "a", "test_accuracy": 0.98, "parameters": 10}
    rows = [row, row | {"peer": "b"}, row | {"peer": "c", "test_accuracy": 0.97, "parameters": 9}]
    found = peers.disagreements(rows, 0.5)
    assert [line.split(":")[0] for line in found] == ["c", "c"]
    assert peers.disagreements(rows[:2], 0.0) == []


class FakeWorker:
    def __init__(self, name, log, breaks_at=99):
        self.name, self.log, self.left = name, log, breaks_at

    def ask(self, what):
        self.left -= 1
        if self.left < 0:
            raise peer_processes.PeerError("broke off")
        self.log.append(self.name)
        return {"seconds": 1.0}


def test_peers_take_turns_and_may_break_off(capsys):
    log = []
    workers = [FakeWorker("a", log), FakeWorker("b", log, 1), FakeWorker("c", log)]
    answers = peer_processes.take_turns(workers, "train", 3)
    assert [worker.name for worker in workers] == list(answers) == ["a", "c"]
    assert "".join(log) == "abc" + "ca" + "ac"
    assert all(len(rounds) == 3 for rounds in answers.values())
    assert "b: broke off" in capsys.readouterr().out


def test_numbers_of_cores_are_used_in_turn_and_given_back():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot restrict a process to some cores")
    before = os.sched_getaffinity(0)
    numbers = sorted({1, len(before)})
    seen = [len(os.sched_getaffinity(0)) for _ in peers.on_each_number_of_cores(numbers)]
    assert seen == numbers
    assert list(peers.on_each_number_of_cores(())) == [None]
    with pytest.raises(mnistjax.errors.ConfigError, match=r"from 1 to \d+, .* found 0"):
        next(peers.on_each_number_of_cores((0,)))
    assert os.sched_getaffinity(0) == before
