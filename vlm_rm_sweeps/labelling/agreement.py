"""Agreement of raters: Cohen's kappa for each pair, over the items that both have labelled."""

from itertools import combinations

import numpy as np
import pandas as pd

from vlm_rm_sweeps.labelling.scales import Scale


def answers_by_rater(labels: pd.DataFrame) -> pd.DataFrame:
    """Pivot labels into one column for each rater.

    Args:
        labels: As `LabelStore.table` returns them.

    Returns:
        A row for each item, a column for each rater, NaN where there is no answer.
    """
    return labels.dropna(subset="value").pivot(index="item", columns="rater", values="value")


def agreement(labels: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Measure how far each pair of raters agrees.

    Cohen's kappa is linearly weighted: 25 % against 50 % is less of a disagreement than 25 % against 100 %. For yes and no this
    is the unweighted kappa.

    Args:
        labels: As `LabelStore.table` returns them.
        scale: The possible answers.

    Returns:
        A row for each pair: `first`, `second`, `items` (answered by both), `equal` (share of equal answers, NaN without such
        items) and `kappa` (NaN if both gave the same answer throughout, because then it is undefined).
    """
    from sklearn.metrics import cohen_kappa_score  # lazy: it would take half of the label page's start-up time

    answers = answers_by_rater(labels)
    # scikit-learn accepts classes in a given order only as strings.
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
