"""Labelled data sets that a sweep file names: of its task, drawn as its trials draw, with a truth that varies."""

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import Truth, read_truth
from vlm_rm_sweeps.evaluation.states import StateDataset, load_states, rendering_name
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.sections import LabelledStates


def read_labelled(named: LabelledStates, plan: Plan, key: str) -> tuple[StateDataset, Truth]:
    """Read a labelled data set that a sweep file names, and the truth about its states.

    Args:
        named: The data set and its truth.
        plan: The sweep whose reward models are measured on it.
        key: Where the sweep file names it, for messages.

    Raises:
        UserError: It is not a data set, has states of another task, or states drawn otherwise than the sweep's trials draw them;
            and as `read_truth` raises it. Images whose rendering is unknown are accepted as they are.
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
