"""Where a trial may run: on any node with room that has not refused one."""

from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

from vlm_rm_sweeps.serving.refused_nodes import refused_nodes

_asked: list[PlacementGroup] = []
_NODE = "ray.io/node-id"
"""A label that Ray gives to each node."""


class TrialPlacement(PlacementGroupFactory):
    """What a trial reserves. Tune asks for it, in the driver, whenever a trial needs a process."""

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for room on the nodes that have refused no trial so far."""
        refused = sorted(refused_nodes())
        wanted = {_NODE: f"!in({','.join(refused)})"} if refused else {}
        group = placement_group(self.bundles, self.strategy, bundle_label_selector=[wanted] * len(self.bundles))
        _asked.append(group)
        return group


def asked_groups() -> tuple[int, int]:
    """Count the trials for which room was asked in this process: those that have it now, and those that wait for it."""
    states = [placement_group_table(group).get("state", "REMOVED") for group in _asked]
    _asked[:] = [group for group, state in zip(_asked, states, strict=True) if state != "REMOVED"]
    has_room = states.count("CREATED")
    return has_room, len(_asked) - has_room
