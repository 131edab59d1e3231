"""A sweep on a Ray of several nodes, in a process of its own: the short form of tests/cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

A_NODE_DIES = """
import sys, threading, time
from pathlib import Path
import psutil
import ray
from ray.cluster_utils import Cluster
from small_sweeps import SWEEP
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep

results = Path(sys.argv[1])
prepare_ray()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)

def has_the_trial(node):
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any("TrainableTrial" in " ".join(each.cmdline()) for each in raylet.children(recursive=True))

def lose_a_node():
    while not list(results.glob("*/trials/*/step-*/checkpoint.json")):
        time.sleep(0.05)
    (dies,) = filter(has_the_trial, nodes)
    cluster.remove_node(dies, allow_graceful=False)

threading.Thread(target=lose_a_node, daemon=True).start()
keys = SWEEP | {"true_reward": False, "videos": False, "steps": 2048, "checkpoint_every": 128}
outcome = run_sweep(Sweep.model_validate(keys), results)
print("ended:", *outcome.table["status"], flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.sweeps
def test_a_trial_whose_node_dies_goes_on_elsewhere_and_has_not_failed(tmp_path: Path) -> None:
    """Though `retries` is 0. One line says it, with its cause."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", A_NODE_DIES, str(tmp_path / "results")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ended: finished" in done.stdout, done.stdout + done.stderr
    (told,) = [line for line in done.stdout.splitlines() if "retrying" in line]
    assert "failed (its node " in told
    assert "Trial task failed" not in done.stderr
    assert "Traceback" not in done.stderr
