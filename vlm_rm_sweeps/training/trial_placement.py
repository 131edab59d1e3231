"""Where trials get their processes: on nodes that can run them, and on those without GPUs while there is room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

from vlm_rm_sweeps.serving.ray_internals import free_resources
from vlm_rm_sweeps.serving.refused_nodes import refused_nodes

_NODE = "ray.io/node-id"
"""A label that Ray gives to each node."""
_CREATED, _REMOVED = "CREATED", "REMOVED"
"""States of a placement group in Ray."""


@dataclass(frozen=True)
class _Asked:
    """A group that was asked for, and the CPUs of its bundles if only nodes without GPUs may give them."""

    group: PlacementGroup
    without_gpus: Sequence[float] = ()


_asked: list[_Asked] = []


class TrialPlacement(PlacementGroupFactory):
    """What a trial reserves. Tune asks for it, in the driver, whenever a trial needs a process."""

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for room on the nodes that have refused no trial so far.

        A trial that needs no GPU leaves the nodes that have some to reward servers, while others have room. Ray itself does so for
        actors, and not for placement groups.

        Returns:
            The group, which may have to wait for its room.
        """
        avoided = set(refused_nodes())
        cpus: tuple[float, ...] = ()
        if not any(bundle.get("GPU") for bundle in self.bundles):
            with_gpus = {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")}
            wanted = [bundle.get("CPU", 0.0) for bundle in self.bundles]
            if with_gpus and _have_room(wanted, avoided | with_gpus):
                avoided, cpus = avoided | with_gpus, tuple(wanted)
        wanted_nodes = {_NODE: f"!in({','.join(sorted(avoided))})"} if avoided else {}
        group = placement_group(self.bundles, self.strategy, bundle_label_selector=[wanted_nodes] * len(self.bundles))
        _asked.append(_Asked(group, cpus))
        return group


def _have_room(wanted: Sequence[float], avoided: set[str]) -> bool:
    """Tell whether the other nodes have CPUs for some bundles, beside those that were asked for before.

    What is free is told by the nodes now and then: it knows of other people's work, and not of what was given away a moment ago.
    """
    states = [(each, _state(each.group)) for each in _asked]
    ours = [cpus for each, state in states if state != _REMOVED for cpus in each.without_gpus]
    waiting = [cpus for each, state in states if state not in (_REMOVED, _CREATED) for cpus in each.without_gpus]
    whole = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return _fit([*ours, *wanted], whole, avoided) and _fit([*waiting, *wanted], free_resources(), avoided)


def _fit(bundles: Sequence[float], resources: Mapping[str, Mapping[str, float]], avoided: set[str]) -> bool:
    """Tell whether bundles fit into the CPUs of nodes, each into the one that has most of them left."""
    left = {node: has.get("CPU", 0.0) for node, has in resources.items() if node not in avoided}
    for cpus in sorted(bundles, reverse=True):
        node = max(left, key=lambda each: left[each], default=None)
        if node is None or left[node] < cpus:
            return False
        left[node] -= cpus
    return True


def _state(group: PlacementGroup) -> str:
    return str(placement_group_table(group).get("state", _REMOVED))


def asked_groups() -> tuple[int, int]:
    """Count the trials for which room was asked in this process: those that have it now, and those that wait for it."""
    states = [_state(each.group) for each in _asked]
    _asked[:] = [each for each, state in zip(_asked, states, strict=True) if state != _REMOVED]
    has_room = states.count(_CREATED)
    return has_room, len(_asked) - has_room
