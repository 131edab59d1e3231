"""Trials ask for room on nodes that have refused none."""

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
