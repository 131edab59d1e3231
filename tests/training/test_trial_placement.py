"""Trials ask for room on nodes that have refused none, and on those with GPUs last."""

import os
import subprocess
import sys

import pytest
import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from vlm_rm_sweeps.serving.refused_nodes import NodeRefused, forget_refused_nodes, refuse
from vlm_rm_sweeps.training.trial_placement import TrialPlacement


def is_placed(group: PlacementGroup) -> bool:
    try:
        ray.get(group.ready(), timeout=2)
    except GetTimeoutError:
        return False
    finally:
        remove_placement_group(group)
    return True


def test_a_node_that_has_refused_a_trial_is_asked_no_more(ray_cluster: None) -> None:
    """Tune compares such requests, and asks for a new group with each of them."""
    forget_refused_nodes()
    placement = TrialPlacement([{"CPU": 1.0}])
    assert is_placed(placement.to_placement_group())
    node = ray.get_runtime_context().get_node_id()
    assert refuse(NodeRefused(node, "it lacks something"))
    assert not refuse(NodeRefused(node, "it lacks something"))
    assert not is_placed(placement.to_placement_group())
    forget_refused_nodes()
    assert is_placed(placement.to_placement_group())
    assert placement == TrialPlacement([{"CPU": 1.0}])


ON_TWO_KINDS_OF_NODES = """
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from vlm_rm_sweeps.training.trial_placement import TrialPlacement

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=4, num_gpus=2)
cluster.add_node(num_cpus=3)
ray.init(address=cluster.address, log_to_driver=False)
cluster.wait_for_nodes()
with_gpus = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}

def has_gpus(bundles, strategy="PACK"):
    group = TrialPlacement(bundles, strategy=strategy).to_placement_group()
    ray.get(group.ready(), timeout=30)
    return [node in with_gpus for node in placement_group_table(group)["bundles_to_node_id"].values()]

assert has_gpus([{"CPU": 1}, {"CPU": 1}]) == [False, False]  # with an env runner
assert has_gpus([{"CPU": 1}]) == [False]
assert has_gpus([{"CPU": 1}]) == [True]  # the others are full
assert has_gpus([{"CPU": 1, "GPU": 1}]) == [True]
print("placed")
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.sweeps
def test_trials_without_gpus_leave_nodes_with_gpus_to_servers_while_others_have_room() -> None:
    """The GPUs are said to be there."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_KINDS_OF_NODES], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1:] == ["placed"], done.stdout + done.stderr[-4000:]
