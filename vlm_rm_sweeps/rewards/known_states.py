"""Statistics of the states that a model was trained on, and which frames are unlike them: drift.

The measure is the Mahalanobis distance to the training states in a feature space, by a covariance that is shrunk (Ledoit and Wolf), so
that it can be inverted where there are few states for many features. A frame has drifted if it is beyond the 99th percentile of the
training states' own distances: of frames like those, about 1 % are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import AUDIT_COLUMN

DRIFT = "drift"
"""The column of a model that has such statistics: 1 for a frame unlike its training states, else 0. Its mean is a share."""
AUDIT_DRIFT = AUDIT_COLUMN + DRIFT
LIKE_TRAINING = 0.01
"""Share of the training states that are beyond the limit."""
REMARKABLE = 0.05
"""Share of drifted frames above which measurements and audits say so."""
MEASURABLE = 0.5
"""Share of drifted frames above which nothing is measured."""
DISTIL_AGAIN = "distil again with such states (`vlm-rm distill --states FOLDER`)"
TRAINING_REMEDY = (
    f"let its teacher judge (`audit: {{models: TEACHER}}`), or collect them (`vlm-rm states rollouts`) and {DISTIL_AGAIN}"
)
"""What to do where policies went to states that their model does not know."""


@dataclass(frozen=True)
class KnownStates:
    """Statistics of training states.

    Attributes:
        mean_d: Mean of their features, float64 (d,).
        whitening_dd: Maps a centred feature vector to one whose length is the distance, float64 (d, d).
        limit: The 99th percentile of their distances.
    """

    mean_d: np.ndarray
    whitening_dd: np.ndarray
    limit: float

    @classmethod
    def of(cls, features_nd: np.ndarray) -> "KnownStates":
        """Compute the statistics.

        Args:
            features_nd: Features of the training states, which must not be the same for all, float (n, d).

        Returns:
            The statistics.
        """
        from sklearn.covariance import ledoit_wolf  # takes seconds

        features_nd = np.asarray(features_nd, np.float64)
        covariance, _ = ledoit_wolf(features_nd)
        known = cls(features_nd.mean(axis=0), np.linalg.inv(np.linalg.cholesky(covariance)), np.inf)
        return cls(known.mean_d, known.whitening_dd, float(np.quantile(known.distances(features_nd), 1 - LIKE_TRAINING)))

    def check(self, features: int) -> None:
        """Refuse statistics that were read and cannot be used.

        Args:
            features: The number d of features that they are of.

        Raises:
            ValueError: They are of another number of features, or not finite.
        """
        shapes = self.mean_d.shape, self.whitening_dd.shape
        if shapes != ((features,), (features, features)):
            raise ValueError(f"statistics of shapes {shapes[0]} and {shapes[1]}")
        if not (np.isfinite(self.mean_d).all() and np.isfinite(self.whitening_dd).all()):
            raise ValueError("statistics that are not finite")

    def distances(self, features_nd: np.ndarray) -> np.ndarray:
        """Compute Mahalanobis distances to the training states.

        Args:
            features_nd: float (n, d).

        Returns:
            float64 (n,).
        """
        # Row by row: a product of matrices is rounded differently for other numbers of rows.
        rows = (np.linalg.norm(self.whitening_dd @ row) for row in np.asarray(features_nd, np.float64) - self.mean_d)
        return np.fromiter(rows, np.float64, len(features_nd))

    def drifted(self, features_nd: np.ndarray) -> np.ndarray:
        """Say which states are unlike the training states.

        Args:
            features_nd: float (n, d).

        Returns:
            1 for a state beyond the limit, else 0, float32 (n,).
        """
        return (self.distances(features_nd) > self.limit).astype(np.float32)


def drift_remark(model_id: str, means: Mapping[str, float]) -> list[str]:
    """Say that many of some states are unlike those that a model was trained on, and refuse to measure it where most are.

    Args:
        model_id: The model.
        means: Means of its columns over the states.

    Returns:
        One sentence, or none if at most 5 % are.

    Raises:
        UserError: More than half are.
    """
    share = means.get(DRIFT, 0.0)
    if share <= REMARKABLE:
        return []
    remark = f"{model_id}: {_unlike(share, 'these states')}"
    if share > MEASURABLE:
        raise UserError(
            f"{remark}, and so would be what is measured of them: expected at most {100 * MEASURABLE:g} %; measure its teacher, or "
            f"{DISTIL_AGAIN}"
        )
    return [remark]


def drift_in_training(share: float, env_steps: int) -> str | None:
    """Say that a policy has gone to states that the model which rewards it does not know.

    Args:
        share: Share of drifted frames since the audit point before, in [0, 1].
        env_steps: Environment steps at this audit point.

    Returns:
        A sentence with what to do, or None if at most 5 % have drifted.
    """
    if share <= REMARKABLE:
        return None
    return f"drift at step {env_steps:,}: {_unlike(share, 'its latest frames')}; {TRAINING_REMEDY}"


def _unlike(share: float, frames: str) -> str:
    return (
        f"{100 * share:.0f} % of {frames} are unlike those that it was trained on (of such, {100 * LIKE_TRAINING:g} % would be): "
        "its rewards there are arbitrary"
    )
