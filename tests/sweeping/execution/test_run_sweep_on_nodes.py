"""A sweep on a Ray of several nodes, in a process of its own: the short form of tests/cluster."""

import os
import socket
import subprocess
import sys
import tempfile
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


def in_new_process(script: str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Run a script that starts a cluster of its own, of which nothing is left in the temporary folder."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=environment | {"RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=600,
        )


@pytest.mark.sweeps
def test_a_trial_whose_node_dies_goes_on_elsewhere_and_has_not_failed(tmp_path: Path) -> None:
    """Though `retries` is 0. One line says it, with its cause."""
    done = in_new_process(A_NODE_DIES, tmp_path / "results")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ended: finished" in done.stdout, done.stdout + done.stderr
    (told,) = [line for line in done.stdout.splitlines() if "retrying" in line]
    assert "failed (its node " in told
    assert "Trial task failed" not in done.stderr
    assert "Traceback" not in done.stderr


A_BAD_NODE_JOINS = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from small_sweeps import SWEEP
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution import scheduling
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep

scheduling._SUCCESSOR_S = 20.0
results, other_version, good_stays = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "stays"
prepare_ray()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
good = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def change_nodes():
    while not list(results.glob("*/trials/*/step-*/checkpoint.json")):
        time.sleep(0.05)
    cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": other_version})
    if not good_stays:
        cluster.remove_node(good, allow_graceful=False)
    time.sleep(600)  # a node ends with the thread that added it

ray._private.utils.set_sigterm_handler = lambda handler: None  # a node that a thread adds could set none
threading.Thread(target=change_nodes, daemon=True).start()
keys = SWEEP | {"true_reward": False, "steps": 4096, "checkpoint_every": 128, "alphas": [0.0, 0.2, 0.4, 0.6, 0.8]}
keys |= {"trial": {"cpus": 1, "retries": 0}}
try:
    outcome = run_sweep(Sweep.model_validate(keys), results)
    print("ended:", *outcome.table["status"], flush=True)
except ValueError as error:
    print("refused:", error, flush=True)
ray.shutdown()
cluster.shutdown()
"""


def sweep_with_a_bad_node(folder: Path, good: str) -> "subprocess.CompletedProcess[str]":
    """Run a sweep of five trials on a node of one CPU, which another node joins that has another version of the package."""
    information = folder / "other" / "vlm_rm_sweeps-0.0.1.dist-info" / "METADATA"
    information.parent.mkdir(parents=True)
    information.write_text("Metadata-Version: 2.1\nName: vlm-rm-sweeps\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(folder / "other"), os.environ.get("PYTHONPATH", "")])
    return in_new_process(A_BAD_NODE_JOINS, folder / "results", path, good)


@pytest.mark.sweeps
def test_a_bad_node_that_joins_late_fails_no_trial_and_is_named_once(tmp_path: Path) -> None:
    """Its two CPUs are free, so it is the first to get each of the trials that wait. `retries` is 0."""
    done = sweep_with_a_bad_node(tmp_path, "stays")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ended: finished finished finished finished finished" in done.stdout, done.stdout + done.stderr
    (told,) = [line for line in done.stdout.splitlines() if " 0.0.1, and the machine of the sweep " in line]
    assert told.startswith(f"node {socket.gethostname()} has vlm-rm-sweeps")
    assert told.endswith("This sweep trains no more on that node")
    assert "retrying" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.sweeps
def test_a_sweep_whose_only_nodes_are_bad_ends_with_the_reason(tmp_path: Path) -> None:
    done = sweep_with_a_bad_node(tmp_path, "dies")
    assert done.returncode == 0, done.stderr[-4000:]
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("refused: ")]
    assert f"node {socket.gethostname()} has vlm-rm-sweeps 0.0.1, and the machine of the sweep" in told
    assert told.endswith("No other node can run trials: mend that, and continue with --resume")


OTHERS_USE_THE_CLUSTER = """
import sys
import tempfile
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from small_sweeps import SWEEP
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution import room
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep

room._USUAL_S = 3.0
prepare_ray()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

@ray.remote(num_cpus=1)
class Other:
    def ready(self):
        return True

other = Other.remote()
ray.get(other.ready.remote())

def say(line):
    print(line, flush=True)
    if "for room" in line:
        ray.kill(other)

keys = SWEEP | {"true_reward": False, "videos": False, "alphas": [0.0, 0.5], "trial": {"cpus": 1, "retries": 0}}
outcome = run_sweep(Sweep.model_validate(keys), Path(sys.argv[1]), say=say)
print("ended:", *outcome.table["status"], flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.sweeps
def test_trials_that_wait_for_room_that_others_use_are_said(tmp_path: Path) -> None:
    done = in_new_process(OTHERS_USE_THE_CLUSTER, tmp_path / "results")
    assert "ended: finished finished" in done.stdout, done.stdout + done.stderr[-4000:]
    (told,) = [line for line in done.stdout.splitlines() if "for room" in line]
    assert told == "2 trials wait for room: each needs 1 CPUs and 0 GPUs; free on the cluster: 0 CPUs and 0 GPUs"


A_SERVER_IS_LOST = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from small_sweeps import SWEEP
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.serving import lost_servers
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep

lost_servers._USUAL_S, lost_servers.LONGEST_START_S = 4.0, 10.0
results = Path(sys.argv[1])
prepare_ray()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
of_server, _ = cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def lose_the_server():
    while not list(results.glob("*/trials/*/step-*/checkpoint.json")):
        time.sleep(0.05)
    cluster.remove_node(of_server, allow_graceful=False)

threading.Thread(target=lose_the_server, daemon=True).start()
keys = SWEEP | {"true_reward": False, "videos": False, "steps": 20_000, "checkpoint_every": 128}
keys |= {"trial": {"cpus": 1, "retries": 0}, "pool": {"cpus": 2}}
outcome = run_sweep(Sweep.model_validate(keys), results)
print("ended:", *(f"{each.status}: {each.reason}" for each in outcome.outcomes), flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.sweeps
def test_a_server_whose_node_gets_no_successor_is_given_up_and_its_trial_fails_with_the_reason(tmp_path: Path) -> None:
    done = in_new_process(A_SERVER_IS_LOST, tmp_path / "results")
    assert done.returncode == 0, done.stderr[-4000:]
    said = [line for line in done.stdout.splitlines() if "reward server of embedded/tiny" in line]
    assert any("is lost, and has not started again for" in line for line in said), done.stdout
    assert any("is given up: it did not start again for 10 s" in line for line in said), done.stdout
    (ended,) = [line for line in done.stdout.splitlines() if line.startswith("ended: ")]
    assert ended.startswith("ended: failed: PoolUnavailable: the last reward server of embedded/tiny died")
    assert "Traceback" not in done.stderr
