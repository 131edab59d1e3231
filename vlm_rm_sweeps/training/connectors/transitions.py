"""The connector that turns replayed transitions into the learner's batch."""

from typing import Any

from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID


class TakeTransitions(ConnectorV2):
    """Learner connector that uses a batch of `Transitions` as it is.

    It comes first in its pipeline, in place of RLlib's connectors that read episodes.
    """

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], episodes: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the columns of the one `Transitions` in `episodes`, under the module's id."""
        (transitions,) = episodes
        return {DEFAULT_MODULE_ID: dict(transitions.columns)}
