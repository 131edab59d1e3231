"""How far raters agree: Cohen's kappa for each pair, over the items that both have labelled."""

from itertools import combinations

import numpy as np
import pandas as pd

from vlm_rm_sweeps.labelling.scales import Scale


def answers_by_rater(labels: pd.DataFrame) -> pd.DataFrame:
    """A row for each item and a column for each rater, out of `LabelStore.table()`; NaN where there is no answer."""
    return labels.dropna(subset="value").pivot(index="item", columns="rater", values="value")


def agreement(labels: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """For each pair of raters: `items` that both answered, the share on which they are `equal`, and `kappa`.

    Kappa is linearly weighted, which on yes and no is the plain one: 25 % against 50 % is less of a disagreement than against
    100 %. It is NaN where both gave one and the same answer throughout, since chance alone would give that, too.
    """
    from sklearn.metrics import cohen_kappa_score  # half of what the label page would otherwise wait for at its start

    answers = answers_by_rater(labels)
    # scikit-learn takes only strings for classes whose order is given.
    classes = [str(value) for value in sorted(answer.value for answer in scale.answers)]
    rows = []
    for first, second in combinations(sorted(answers.columns), 2):
        both = answers[[first, second]].dropna().to_numpy()
        varies = len(both) > 0 and np.ptp(both) > 0
        kappa = (
            cohen_kappa_score(*both.T.astype(float).astype(str), labels=classes, weights="linear") if varies else float("nan")
        )
        equal = float(np.mean(both[:, 0] == both[:, 1])) if len(both) else float("nan")
        rows.append({"first": first, "second": second, "items": len(both), "equal": equal, "kappa": kappa})
    return pd.DataFrame(rows, columns=["first", "second", "items", "equal", "kappa"])
