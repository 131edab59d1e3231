"""Where a trial may run: on any node with room that has not refused one."""

from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group

from vlm_rm_sweeps.serving.refused_nodes import refused_nodes

_NODE = "ray.io/node-id"
"""A label that Ray gives to each node."""


class TrialPlacement(PlacementGroupFactory):
    """What a trial reserves. Tune asks for it, in the driver, whenever a trial needs a process."""

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for room on the nodes that have refused no trial so far."""
        refused = sorted(refused_nodes())
        wanted = {_NODE: f"!in({','.join(refused)})"} if refused else {}
        return placement_group(self.bundles, self.strategy, bundle_label_selector=[wanted] * len(self.bundles))
