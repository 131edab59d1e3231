"""Labelled data sets that a sweep file names: those that are of its task, drawn as its trials draw, with a truth that varies."""

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import Truth, read_truth
from vlm_rm_sweeps.evaluation.states import StateDataset, load_states, rendering_name
from vlm_rm_sweeps.sweeping.config.sweep import LabelledStates, Sweep


def read_labelled(named: LabelledStates, sweep: Sweep, key: str) -> tuple[StateDataset, Truth]:
    """The data set, and the truth about its states, which the sweep file names at `key`.

    Raises UserError if it is none, of another task or drawn otherwise than the sweep's trials draw, and as `read_truth` does.
    Images from elsewhere, of which nobody knows how they were drawn, are taken as they are.
    """
    dataset = load_states(named.states)
    task = sweep.the_task().name
    if dataset.task.name != task:
        raise UserError(
            f"{dataset.folder} has states of {dataset.task.name}, and {sweep.name!r} is of {task}: name a data set of that task in "
            f"{key}.states"
        )
    wanted = [(each.textures, each.camera, each.profile) for each in sweep.renderings()]
    for drawn in dataset.renderings():
        if drawn not in wanted:
            raise UserError(
                f"{dataset.folder} has states drawn with {rendering_name(*drawn)}, and trials are to be trained with "
                f"{'; '.join(rendering_name(*each) for each in wanted)}: name that under textures, cameras and profile, or a data set "
                f"that is drawn so in {key}.states"
            )
    return dataset, read_truth(dataset, named.truth)
