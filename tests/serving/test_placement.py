"""What has no room on a cluster is refused at once, or waited for where machines may join."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from own_network import needs_namespaces, run_in_own_network

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.serving import pool
from vlm_rm_sweeps.serving.placement import await_placement, check_placement, has_room_without, trials_that_fit
from vlm_rm_sweeps.serving.pool import PoolConfig


def tiny_pool(name: str, **settings: Any) -> PoolConfig:
    return PoolConfig(name, "embedded/tiny", FrameFormat(64), **settings)


@pytest.mark.parametrize(
    ("pool", "trial_cpus", "what"),
    [
        (tiny_pool("p", gpus=1), 1.0, "reward server p/embedded/tiny/0 needs 0 CPUs and 1 GPUs"),
        (tiny_pool("p", servers=3, cpus=1), 1.0, "reward server p/embedded/tiny/2 needs 1 CPUs"),
        (tiny_pool("p", cpus=2), 1.0, "one trial beside the reward servers needs 1 CPUs"),
        (tiny_pool("p"), 64.0, "one trial beside the reward servers needs 64 CPUs"),
    ],
)
def test_what_cannot_be_placed_is_an_error_at_once(ray_cluster: None, pool: PoolConfig, trial_cpus: float, what: str) -> None:
    with pytest.raises(UserError, match=f"{what}.* set `wait_for_nodes_s`"):
        check_placement([pool], trial_cpus, trial_gpus=0)


def test_what_fits_is_neither_refused_nor_waited_for(ray_cluster: None) -> None:
    pools, said = [tiny_pool("p", servers=4), tiny_pool("q", cpus=1)], list[str]()
    check_placement(pools, 1, 0)
    assert not await_placement(pools, 1, 0, 0, wait_s=60, say=said.append)
    assert said == []


def test_a_trial_needs_room_on_a_node_that_has_refused_none_and_a_server_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": name, "Alive": True, "Resources": {"CPU": cpus}} for name, cpus in (("good", 1.0), ("bad", 4.0))]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    server = tiny_pool("p", cpus=1)
    assert has_room_without({"bad"}, [server], 1.0, 0.0)
    assert trials_that_fit(9, (), [server], 1.0, 0.0) == 4
    assert trials_that_fit(9, (), [server], 1.0, 0.0, env_runners=1) == 2
    assert trials_that_fit(9, (), [tiny_pool("p", cpus=8)], 1.0, 0.0) == 0
    assert not has_room_without({"bad"}, [server], 2.0, 0.0)
    assert has_room_without({"good"}, [server], 2.0, 0.0)
    assert not has_room_without({"bad"}, [server], 1.0, 0.0, env_runners=1)
    assert not has_room_without({"good", "bad"}, [], 1.0, 0.0)


def say_there_is_one_node(monkeypatch: pytest.MonkeyPatch, **resources: float) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "only", "Alive": True, "Resources": resources}])


@pytest.mark.parametrize(
    ("servers", "gpus", "lacking"),
    [
        ({0.5: 4}, 2, None),
        ({0.6: 2}, 2, None),
        ({0.6: 3}, 2, "p0.6/embedded/tiny/2 needs 0 CPUs and 0.6 GPUs, and no node has that much left on one GPU"),
        ({0.5: 2, 1: 1}, 2, None),
        ({0.5: 3, 1: 1}, 2, "p0.5/embedded/tiny/2 needs 0 CPUs and 0.5 GPUs, and no node has that much left on one GPU"),
        ({0.4: 1, 0.6: 2}, 2, None),
        ({0.4: 2, 0.6: 2}, 2, None),
        ({0.4: 3, 0.6: 2}, 2, "p0.4/embedded/tiny/2 needs"),
        ({0.2: 2, 0.4: 1, 0.6: 1, 0.8: 1}, 2, "p0.2/embedded/tiny/1 needs"),
        ({0.2: 1, 0.4: 1, 0.6: 1, 0.8: 1}, 2, None),
        ({0.1: 10}, 1, None),
        ({0.1: 11}, 1, "p0.1/embedded/tiny/10 needs"),
        ({0.1: 10, 1: 1}, 2, None),
        ({0.7: 1, 0.3: 1}, 1, None),
        ({1: 2}, 2, None),
        ({1: 3}, 2, "p1/embedded/tiny/2 needs 0 CPUs and 1 GPUs, and no node has that much left;"),
        ({2: 1, 0.5: 1}, 2, "p0.5/embedded/tiny/0 needs"),
        ({2: 1, 0.5: 2}, 3, None),
    ],
)
def test_a_fraction_of_a_gpu_is_on_one_gpu_with_others(
    monkeypatch: pytest.MonkeyPatch, servers: dict[float, int], gpus: int, lacking: str | None
) -> None:
    say_there_is_one_node(monkeypatch, CPU=1.0, GPU=float(gpus))
    pools = [tiny_pool(f"p{share:g}", servers=count, gpus=share) for share, count in servers.items()]
    if lacking is None:
        check_placement(pools, 1, 0)
        return
    with pytest.raises(UserError, match=f"^reward server {lacking}.* the cluster's nodes have 1 CPUs and {gpus} GPUs"):
        check_placement(pools, 1, 0)


def test_a_fraction_is_on_one_gpu_of_any_node_but_not_on_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0, "GPU": gpus}} for name, gpus in (("a", 1.0), ("b", 2.0))]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    check_placement([tiny_pool("p", servers=3, gpus=0.6)], 1, 0)
    with pytest.raises(UserError, match=r"tiny/3 needs 0 CPUs and 0\.6 GPUs.* have 1 CPUs and 1 GPUs, 1 CPUs and 2 GPUs"):
        check_placement([tiny_pool("p", servers=4, gpus=0.6)], 1, 0)


def test_trials_that_learn_on_a_fraction_of_a_gpu_are_counted_by_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    say_there_is_one_node(monkeypatch, CPU=9.0, GPU=2.0)
    assert trials_that_fit(9, (), [], 1.0, 0.6) == 2
    assert trials_that_fit(9, (), [tiny_pool("p", gpus=1)], 1.0, 0.3) == 3
    assert trials_that_fit(9, (), [tiny_pool("p", servers=2, gpus=0.5)], 1.0, 1.0) == 1
    assert trials_that_fit(9, (), [tiny_pool("p", servers=2, gpus=0.6)], 1.0, 1.0) == 0


def test_tenths_of_cpus_add_up_and_no_number_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    say_there_is_one_node(monkeypatch, CPU=2.0, GPU=1.0)
    check_placement([tiny_pool("p", servers=10, cpus=0.1)], 1, 0)
    assert trials_that_fit(99, (), [], 0.1, 0.0) == 20
    for too_large in (1e300, 1e308):
        with pytest.raises(UserError, match="one trial beside the reward servers needs"):
            check_placement([], too_large, 0)
        with pytest.raises(UserError, match="one trial beside the reward servers needs"):
            check_placement([], 1, too_large)


def test_servers_that_wait_for_room_are_said_once(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_USUAL_PLACE_S", 0.5)
    model, said = load_reward_model("embedded/tiny"), list[str]()
    config = tiny_pool("waits", servers=2, cpus=64)
    servers = pool.start_pool(config, model)
    with pytest.raises(UserError, match="the 2 reward servers of embedded/tiny were not ready within 2 s"):
        pool.await_pool(config, servers, [], timeout_s=2, say=said.append)
    for server in servers:
        ray.kill(server)
    (line,) = said
    assert line.startswith(
        "no room yet for 2 reward servers of embedded/tiny: each needs 64 CPUs and 0 GPUs; free on the cluster: "
    )


def test_a_wait_in_vain_says_what_has_no_room_and_asks_for_it_no_longer(ray_cluster: None) -> None:
    said: list[str] = []
    with pytest.raises(
        UserError, match=r"after 0\.2 s, one trial beside the reward servers needs 64 CPUs .* the autoscaler's log"
    ):
        await_placement([tiny_pool("p")], 64, 0, 0, wait_s=0.2, say=said.append)
    assert said[0].endswith("waiting at most 0.2 s for machines that join the cluster")
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    assert states <= {"REMOVED"}


A_NODE_JOINS = """
import subprocess, sys, threading, time
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.serving.placement import await_placement
from vlm_rm_sweeps.serving.pool import PoolConfig
prepare_ray()
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(address=cluster.address, log_to_driver=False)
nodes = []

def scale_up():  # as an autoscaler: a machine for a placement group that waits
    while not any(group["state"] == "PENDING" for group in ray.util.placement_group_table().values()):
        time.sleep(0.1)
    command = f"ray start --address={cluster.address} --num-cpus=3 --node-name=second --block"
    nodes.append(subprocess.Popen(command.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

threading.Thread(target=scale_up, daemon=True).start()
try:
    pool = PoolConfig("p", "embedded/tiny", FrameFormat(64), servers=2, cpus=1)
    print("joined" if await_placement([pool], 1.0, 0.0, 0, wait_s=120.0, say=print) else "fitted")
finally:
    for node in nodes:
        node.terminate()
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@needs_namespaces
def test_a_cluster_without_cpus_is_waited_for_until_a_machine_joins(tmp_path: Path) -> None:
    done = run_in_own_network(tmp_path / "a_node_joins.py", A_NODE_JOINS)
    said = done.stdout.splitlines()
    assert said[0].startswith("reward server p/embedded/tiny/0 needs 1 CPUs and 0 GPUs, and no node has that much left")
    assert said[-1] == "joined"


SERVERS_ON_TWO_NODES = """
import numpy as np
from vlm_rm_sweeps.process_defaults import prepare_ray
prepare_ray()
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from own_rewards import Brightness
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, RewardPool, await_pool, start_pool

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1, num_gpus=2)
ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
with_gpus = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")]
model = Brightness("own_rewards:Brightness")
config = PoolConfig.of("p", model, servers=2, gpus=0.5, spread=True)
servers = start_pool(config, model)
await_pool(config, servers, [])

@ray.remote(num_cpus=1)
def client():
    pool = RewardPool.connect(config)
    frames, spec = np.full((2, 16, 16, 3), 7, np.uint8), RewardSpec(("a",), ("b",), 0.5)
    found = [pool.submit(frames, [spec]).result() for _ in range(6)]
    return [each.node for each in found], np.concatenate([each.rewards for each in found])

for node in with_gpus:
    nodes, rewards = ray.get(client.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote())
    assert set(nodes) == set(with_gpus), nodes  # both are tried, until their places are known
    assert set(nodes[2:]) == {node}, nodes
    assert (rewards == 6.5).all()
print("spread")
ray.shutdown()
cluster.shutdown()
"""


def test_servers_with_gpus_are_spread_and_a_client_takes_the_one_beside_it() -> None:
    """The GPUs are said to be there, and the model does not use them."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", SERVERS_ON_TWO_NODES], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1:] == ["spread"], done.stdout + done.stderr[-4000:]
