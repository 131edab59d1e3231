"""Draws all figures that apply to a sweep, and prints why the others do not.

Run `make analysis SWEEP_RUN=results/quickstart-...`, or `python analysis/figures.py FOLDER`.
"""

import alpha
import episode
import improvement
import learning_curves
import model_scaling
import overoptimisation
import performance_profiles
import prompts
import reward_landscape
import search
from runs import DoesNotApplyError, SweepRuns, draw_alone

from vlm_rm_sweeps.errors import UserError

FIGURES = (
    learning_curves,
    model_scaling,
    alpha,
    search,
    performance_profiles,
    improvement,
    overoptimisation,
    prompts,
    reward_landscape,
    episode,
)


def draw(runs: SweepRuns) -> None:
    """Draw and save each figure that applies and whose files are whole."""
    for figure in FIGURES:
        try:
            figure.draw(runs)
        except DoesNotApplyError as reason:
            print(f"{figure.__name__} does not apply: {reason}")
        except UserError as problem:
            print(f"{figure.__name__} is left out: {problem}")


if __name__ == "__main__":
    draw_alone(draw)
