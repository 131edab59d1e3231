"""The card of a distilled model: what it has learned from, how near it comes to its teacher, and what it is not for."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

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


def student_card(about: StudentDescription, fidelity: pd.DataFrame, speeds: Mapping[str, Speed]) -> str:
    """Write a student's card.

    Args:
        about: What its file says.
        fidelity: On the held-out images, see `distill.fidelity`; its last set of states is that of all.
        speeds: Speed of the teacher, then of the student, by name.

    Returns:
        Markdown.
    """
    sets: list[dict[Any, Any]] = fidelity.drop_duplicates("states").to_dict("records")
    held_out = sets[-1]
    head = dedent(
        f"""
        # `{about.teacher}`, distilled for {about.task}

        An image tower that started from `{about.student}` and has learned the image embeddings of `{about.teacher}` on {about.images:,}
        images of {about.task} (seed {about.seed}). Texts are embedded by the teacher, whose weights were `{about.teacher_identity}`.

        ## Fidelity on {held_out["images"]:,} images that it has not seen

        Cosine of both embeddings, and their squared distance as a share of the spread of the teacher's (a constant: 100 %). Drift:
        the share of images that it takes for unlike those that it was trained on.

        | states | images | cosine, mean | 5th percentile | squared distance | drift |
        |---|---|---|---|---|---|
        """
    )
    of_sets = [
        f"| {row['states']} | {row['images']:,} | {row['cosine']:.4f} | {row['cosine_5th']:.4f} | {100 * row['missed']:.1f} % | "
        f"{100 * row['drift']:.1f} % |"
        for row in sets
    ]
    rows = [
        f"| {row['states']} | {row['prompt']} | {row['alpha']:g} | {row['spearman']:.3f} |"
        for row in fidelity.to_dict("records")
    ]
    measured = [f"| {name} | {speed.per_second:,.0f} | {speed.cpu_ms:.2f} |" for name, speed in speeds.items()]
    teacher, student = speeds.values()
    seen = "; ".join(f"{textures} textures, {camera} camera" for textures, camera in about.scenes)
    return "\n".join(
        [
            head.strip(),
            *of_sets,
            "\n| states | goal | alpha | rank correlation of the rewards |",
            "|---|---|---|---|",
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
            "from the training images' than 99 % of those are (Mahalanobis distance): "
            f"{100 * held_out['drift']:.1f} % of the held-out images.",
            f"The audit of a sweep, `vlm-rm epic` and `vlm-rm landscape` say so above {100 * REMARKABLE:g} %, and the latter two",
            f"refuse above {100 * MEASURABLE:g} %. It tells unlike states, not wrong rewards: let the teacher judge, too, by",
            "`audit.models` or `--judge`.",
            "",
        ]
    )
