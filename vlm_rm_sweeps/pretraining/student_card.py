"""The card of a distilled model: what it has learned from, how near it comes to its teacher, and what it is not for."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent

import numpy as np
import pandas as pd

from vlm_rm_sweeps.rewards.distilled import StudentDescription
from vlm_rm_sweeps.rewards.known_states import MEASURABLE, REMARKABLE


@dataclass(frozen=True)
class Speed:
    """How fast a model encodes frames, in one process.

    Attributes:
        per_second: Frames in a second of wall time, median of several turns.
        cpu_ms: Milliseconds of CPU time for a frame.
    """

    per_second: float
    cpu_ms: float


def student_card(
    about: StudentDescription,
    cosines: np.ndarray,
    missed: float,
    rewards: pd.DataFrame,
    speeds: Mapping[str, Speed],
    held_out: int,
    drift: float,
) -> str:
    """Write a student's card.

    Args:
        about: What its file says.
        cosines: Cosine of student and teacher for each held-out image.
        missed: Mean squared distance to the teacher's embeddings, as a share of their spread.
        rewards: Columns `prompt`, `alpha` and `spearman`.
        speeds: Speed of the teacher, then of the student, by name.
        held_out: Number of held-out images.
        drift: Share of the held-out images that its measure of drift takes for unlike the training images.

    Returns:
        Markdown.
    """
    head = dedent(
        f"""
        # `{about.teacher}`, distilled for {about.task}

        An image tower that started from `{about.student}` and has learned the image embeddings of `{about.teacher}` on {about.images:,}
        images of {about.task} (seed {about.seed}). Texts are embedded by the teacher, whose weights were `{about.teacher_identity}`.

        ## Fidelity on {held_out:,} images that it has not seen

        Cosine of both embeddings: mean {cosines.mean():.4f}, 5th percentile {np.percentile(cosines, 5):.4f}.
        Squared distance: {100 * missed:.1f} % of the spread of the teacher's embeddings (a constant: 100 %).

        | goal | alpha | rank correlation of the rewards |
        |---|---|---|
        """
    )
    rows = [f"| {row.prompt} | {row.alpha:g} | {row.spearman:.3f} |" for row in rewards.itertuples()]
    measured = [f"| {name} | {speed.per_second:,.0f} | {speed.cpu_ms:.2f} |" for name, speed in speeds.items()]
    teacher, student = speeds.values()
    seen = "; ".join(f"{textures} textures, {camera} camera" for textures, camera in about.scenes)
    return "\n".join(
        [
            head.strip(),
            *rows,
            "\n## Speed\n",
            "Both in one process, in turn, on the machine that trained it.\n",
            "| model | frames/s | CPU ms a frame |",
            "|---|---|---|",
            *measured,
            f"\nThe student is {student.per_second / teacher.per_second:.1f} times as fast.",
            "\n## What it is not for\n",
            f"Other tasks, textures or cameras than it has seen ({seen}), which a sweep refuses, and states of {about.task} unlike",
            "those that it was trained on. Its rewards there are arbitrary. `drift` is the share of frames whose features are farther",
            f"from the training images' than 99 % of those are (Mahalanobis distance): {100 * drift:.1f} % of the held-out images. The",
            f"audit of a sweep shows it, and `vlm-rm epic` and `vlm-rm landscape` say so above {100 * REMARKABLE:g} % and refuse above",
            f"{100 * MEASURABLE:g} %. It tells unlike states, not wrong rewards: let the teacher judge, too, by `audit.models` or",
            "`--judge`.",
            "",
        ]
    )
