"""The model card of a head: what it was trained on, how well it does on what it has not seen, and what it is not for."""

import math
from textwrap import dedent

from vlm_rm_sweeps.evaluation.heads.validate import Interval, Validation
from vlm_rm_sweeps.rewards.heads import Head

_MEASURES = {
    "roc_auc": "ROC-AUC (0.5: chance)",
    "false_positive_rate": "False-positive rate at 95 % recall",
    "accuracy": "Accuracy on pairs with a preference (0.5: chance)",
    "brier": "Brier score of the probability (0: perfect)",
    "calibration_error": "Expected calibration error",
}
_CHOSEN_RATHER = {False: "in the goal", True: "left is closer"}


def model_card(head: Head, validation: Validation) -> str:
    """Write a head's model card.

    Args:
        head: The head.
        validation: What cross-validation measured.

    Returns:
        Markdown.
    """
    about = head.about
    counts = ", ".join(f"{count} {answer}" for answer, count in about.counts.items())
    learned = "pairs of states" if about.pairs else "states"
    title = f"# Reward head for {about.task}"
    data = dedent(
        f"""
        A {about.kind} ({head.weights.parameters} numbers) on the image embeddings of `{about.model}`, whose weights were not trained.
        Its reward is {_meaning(about.pairs)}.

        ## Data

        | | |
        |---|---|
        | task | {about.task} |
        | truth | `{about.truth}` |
        | labels | {sum(about.counts.values())} {learned}: {counts} |
        | checksum of the data | `{about.data_sha256}` |
        | model's weights | `{about.identity}` |
        | embedding | {about.width} numbers, of frames of {about.frame_format.size} pixels |
        | penalty, seed | {validation.penalty:g}, {about.seed} |

        ## On episodes that it has not seen

        Cross-validation in which all states of an episode are held out together. {validation.judged} of
        {sum(about.counts.values())} labels were judged by a head that had seen none of their episodes. Intervals (95 %) are
        bootstrapped over episodes.

        | measure | value | 95 % interval |
        |---|---|---|
        """
    )
    rows = "\n".join(f"| {_MEASURES[name]} | {_shown(interval)} |" for name, interval in validation.measures.items())
    return f"{title}\n{data}{rows}\n{_reliability(validation, about.pairs)}{_limits(about.task, about.pairs)}"


def _meaning(pairs: bool) -> str:
    if pairs:
        return "a score; the difference of two is the log-odds that the one state is closer to the goal (Bradley and Terry)"
    return "the log-odds that a state is in the goal"


def _shown(interval: Interval) -> str:
    value, low, high = ("-" if math.isnan(each) else f"{each:.3f}" for each in (interval.value, interval.low, interval.high))
    return f"{value} | {low} to {high}"


def _reliability(validation: Validation, pairs: bool) -> str:
    rows = "\n".join(
        f"| {each.low:.1f} to {each.high:.1f} | {each.count} | {each.predicted:.2f} | {each.observed:.2f} |"
        for each in validation.reliability
    )
    return (
        f'\n## Reliability\n\nPredicted probability of "{_CHOSEN_RATHER[pairs]}" against the observed share.\n\n'
        f"| predicted | labels | mean prediction | observed |\n|---|---|---|---|\n{rows}\n"
    )


def _limits(task: str, pairs: bool) -> str:
    judged = "preferences of its raters" if pairs else "truth above"
    return dedent(
        f"""
        ## What it is not for

        - Other models, other weights of the same model, or frames of another size: it is refused there.
        - Other tasks, cameras or textures than those of its data: nothing here says how it does there.
        - States that its data do not cover. A policy that learns from this reward looks for states where it is wrong. Watch the
          true success beside the reward, score the states that the policy visits (`vlm-rm states rollouts`, then `vlm-rm epic`), and
          train again with labels of them.
        - A safety check or a measure of success: it repeats the {judged} with the errors in the table.
        """
    )
