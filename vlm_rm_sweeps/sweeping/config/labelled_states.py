"""Reads the labelled data sets that a sweep file names, and checks their task, renderings and ground truth."""

from collections.abc import Container

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import Truth, read_truth
from vlm_rm_sweeps.evaluation.states import StateDataset, load_states, rendering_name
from vlm_rm_sweeps.rewards.functions.threshold import Threshold
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.sections import LabelledStates


def read_labelled(named: LabelledStates, plan: Plan, key: str) -> tuple[StateDataset, Truth]:
    """Read a labelled data set that a sweep file names, and the ground truth of its states.

    Args:
        named: The data set and the source of its ground truth.
        plan: The sweep whose reward models are measured on it.
        key: The key of the sweep file that names it, for messages.

    Returns:
        The data set and the ground truth of its states.

    Raises:
        UserError: It is not a data set, has states of another task, or has states in a rendering that the sweep's trials do not
            use (images of unknown rendering are accepted); or `read_truth` raises it.
    """
    dataset = load_states(named.states)
    if dataset.task.name != plan.task.name:
        raise UserError(
            f"{dataset.folder} has states of {dataset.task.name}, but {plan.sweep.name!r} is about {plan.task.name}: name a data set "
            f"of that task in {key}.states"
        )
    wanted = [(each.textures, each.camera, each.profile) for each in plan.renderings]
    for drawn in dataset.renderings():
        if drawn not in wanted:
            raise UserError(
                f"{dataset.folder} has states drawn with {rendering_name(*drawn)}, but trials are drawn with "
                f"{'; '.join(rendering_name(*each) for each in wanted)}: name that under textures, cameras and profile, or a data set "
                f"that is drawn so in {key}.states"
            )
    return dataset, read_truth(dataset, named.truth)


def check_labelled(plan: Plan, is_measured: bool = False, thresholds: Container[str] = ()) -> None:
    """Refuse labelled data sets of a sweep that cannot be used, before anything starts.

    Args:
        plan: The sweep.
        is_measured: Whether an earlier execution has measured the rewards on `epic_states`, which are not read then.
        thresholds: Ids of the trials whose threshold an earlier execution has measured.

    Raises:
        UserError: See `read_labelled`.
    """
    if isinstance(plan.sweep.epic_states, LabelledStates) and not is_measured:
        read_labelled(plan.sweep.epic_states, plan, "epic_states")
    for trial in plan.trials:
        threshold = trial.reward.function if trial.reward else None
        if trial.trial_id not in thresholds and isinstance(threshold, Threshold) and threshold.states and trial.reward:
            labelled = LabelledStates(states=threshold.states, truth=threshold.truth)
            read_labelled(labelled, plan, f"rewards, {trial.reward.label}")
