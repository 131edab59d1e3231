"""The model card of the embedded family: text, tables and figures from the results of `vlm-rm pretrain evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import bootstrap

from vlm_rm_sweeps.files import write_whole, written_whole
from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW, PARAMETERS_MILLIONS
from vlm_rm_sweeps.pretraining.evaluate import ALPHAS, MAIN_SETS, FamilyResults
from vlm_rm_sweeps.pretraining.evaluate_prompts import TRUNK_BENT, monotonicity
from vlm_rm_sweeps.pretraining.mountain_car import FLAG
from vlm_rm_sweeps.rewards.open_clip_models import TrainedSize, embedded_manifest
from vlm_rm_sweeps.rewards.registry import EMBEDDED
from vlm_rm_sweeps.tasks.humanoid.poses import POSES
from vlm_rm_sweeps.tasks.registry import find_task

CARD = "MODEL_CARD.md"
MEASURES = "held_out.csv"
PROMPTS = "held_out_prompts.csv"

_INTRODUCTION = """# The embedded family: model card

Small open_clip `CLIP` models (ModifiedResNet image tower, 64 x 64 pixels, frames squashed to a square) that ship with this project,
for machines without a network or a GPU. `vlm-rm pretrain` trains them on rendered frames of CartPole, MountainCar and the humanoid
with generated captions. `vlm-rm pretrain evaluate` evaluates them and writes this file; all numbers are measured by that command.

Captions are composed by a grammar, so that a word alone says little: "straight" is up and down, and each direction, degree and
negation occurs with many states. About half of them come with a foil, the same sentence with one attribute changed or with a "not",
as a hard negative. `words.txt` has every word that they use.

## Limitations

The models know only these three environments, as this project renders them, and the words of their captions. Any other word is
split into tokens that were never trained. A few captions are false: they deny a lower degree of what holds ("not high up the
mountain" at the flag), so check what a prompt with a "not" means to a model. At 64 x 64 pixels fingers, faces and other small
details are lost. Use the models for first experiments, for tests and for developing methods; a claim about CLIP needs one of
open_clip's pretrained models.
"""


def write_model_card(results: Sequence[FamilyResults]) -> Path:
    """Write the model card, its figures and all measures (CSV) into the folder of the first training.

    Args:
        results: Results of one or more trainings of the family; detailed tables are those of the first.

    Returns:
        Path of the card.

    Raises:
        OSError: The disk is full, for example. What was there before is as it was, or replaced as a whole.
    """
    first = results[0]
    parts = [_INTRODUCTION, _data(first), _training(results), _trend(results)]
    parts += [_tasks(first), _prompts(results), _walks(first), _peaks(first), _retrieval(first), _speed(first)]
    card = first.folder / CARD
    joined = pd.concat([each.measures.assign(training=index) for index, each in enumerate(results)], ignore_index=True)
    write_whole(first.folder / MEASURES, joined.to_csv(index=False, float_format="%.5f"))
    prompts = pd.concat([each.prompts.assign(training=index) for index, each in enumerate(results)], ignore_index=True)
    write_whole(first.folder / PROMPTS, prompts.to_csv(index=False, float_format="%.5f"))
    figures = {"scaling.png": (draw_trend(results), 130), "landscapes.png": (draw_landscapes(first.landscapes), 100)}
    for name, (figure, dots_per_inch) in figures.items():
        with written_whole(first.folder / name) as unfinished:
            figure.savefig(unfinished, dpi=dots_per_inch)
    plt.close("all")
    write_whole(card, "\n".join(parts))
    return card


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def _name(size: str) -> str:
    return f"`{EMBEDDED}/{size}`"


def _data(results: FamilyResults) -> str:
    rows = results.captions[["environment", "images", "captions", "examples"]].to_numpy().tolist()
    return (
        "## Data\n\nCartPole over the whole circle and track; MountainCar over the track, with original and modified textures; the\n"
        f"humanoid in {len(POSES)} reference poses, between and around them, and in states that random and scripted policies visit,\n"
        "with both textures and from many cameras. A new caption is drawn each time an image is seen; it describes\n"
        "a noisy neighbour of the image's state. None contains one of the tasks' own prompts or of the test prompts below.\n\n"
        + _table(("environment", "images", "distinct captions", "examples"), rows)
    )


def _training(results: Sequence[FamilyResults]) -> str:
    rows = []
    for each in results:
        manifest = embedded_manifest(each.folder)
        for size in each.speed["size"]:
            entry = manifest[size]
            minutes = entry["training_seconds"] / 60
            rows.append(
                (
                    _name(size),
                    f"{entry['parameters'] / 1e6:.2f}",
                    entry["images"],
                    entry["samples"],
                    entry["seed"],
                    f"{minutes:.0f}",
                )
            )
    headings = ("model", "parameters (M)", "images rendered", "samples seen", "seed", "minutes")
    commands = "\n".join(command for each in results for command in _commands(embedded_manifest(each.folder)))
    origins = {each.folder: embedded_manifest(each.folder).values() for each in results}
    starts = {entry.get("start_sha256") for entries in origins.values() for entry in entries}
    started = (
        "" if starts == {None} else " FOLDER has the weights that each size starts from, whose checksums `manifest.json` has."
    )
    return f"## Training\n\n```\n{commands}\n```\n\nThe package contains the weights of the first seed.{started}\n\n" + _table(
        headings, rows
    )


def _commands(manifest: Mapping[str, TrainedSize]) -> list[str]:
    """Compose the commands of a training: one for all sizes with the same settings."""
    sizes_of: dict[tuple[int, int, int, bool], list[str]] = {}
    for size, entry in manifest.items():
        started = entry.get("start_sha256") is not None
        sizes_of.setdefault((entry["seed"], entry["samples"], entry["images"], started), []).append(size)
    return [
        f"vlm-rm pretrain --size {','.join(sizes)} --seed {seed} --samples {samples} --images {images}{' --from FOLDER' * started}"
        for (seed, samples, images, started), sizes in sizes_of.items()
    ]


def _trend(results: Sequence[FamilyResults]) -> str:
    rows = []
    for each in results:
        seeds = {size: entry["seed"] for size, entry in embedded_manifest(each.folder).items()}
        for size in each.speed["size"]:
            means = each.means[each.means["size"] == size].set_index("alpha")
            cells = [
                f"{row.epic_distance:.3f} [{row.epic_low:.3f}, {row.epic_high:.3f}]"
                for row in (means.loc[alpha] for alpha in ALPHAS)
            ]
            rows.append((_name(size), seeds[size], *cells))
    if len(results) > 1:
        means = pd.concat([each.means for each in results]).groupby(["size", "alpha"])[EPIC_DISTANCE].mean()
        rows += [(_name(size), "mean", *(f"{means[size, alpha]:.3f}" for alpha in ALPHAS)) for size in results[0].speed["size"]]
    return (
        "## EPIC distance by size\n\n"
        "Mean EPIC distance to the truth over the ten tasks, with the paper's own prompts (none of which is a training\n"
        "caption), on held-out states. In brackets: bootstrap interval (95 %, over states). 0 is perfect, 0.707 is\n"
        "uncorrelated.\n\n![EPIC distance by size](scaling.png)\n\n"
        + _table(("model", "seed", *(f"alpha {alpha:g}" for alpha in ALPHAS)), rows)
    )


def _tasks(results: FamilyResults) -> str:
    alpha_0 = results.measures[results.measures["alpha"] == 0]
    sizes = list(results.speed["size"])
    rows = []
    for (name, task), part in alpha_0.groupby(["set", "task"], sort=False):
        by_size = part.set_index("size")
        agreement = "roc_auc" if by_size["roc_auc"].notna().all() else "spearman"
        cells = [f"{by_size.loc[size, EPIC_DISTANCE]:.3f} / {by_size.loc[size, agreement]:.3f}" for size in sizes]
        rows.append((f"{task} ({name})" if name not in MAIN_SETS else task, *cells))
    return (
        "## By task\n\n"
        "At alpha 0: EPIC distance / rank correlation with the truth (CartPole, MountainCar) or area under the ROC curve\n"
        "(humanoid: states in the pose against all other held-out states).\n\n"
        + _table(("task", *(_name(size) for size in sizes)), rows)
    )


def _prompts(results: Sequence[FamilyResults]) -> str:
    sizes = list(results[0].speed["size"])
    joined = pd.concat([each.prompts for each in results])
    # Over the seeds first: counted twice, a prompt would make the interval too narrow.
    means = joined.groupby(["task", "group", "prompt", "size"], sort=False, as_index=False)["agreement"].mean()
    rows = []
    for (task, group), part in means.groupby(["task", "group"], sort=False):
        by_size = part.groupby("size")["agreement"]
        number = part["prompt"].nunique()
        rows.append((task, group, number, *(_mean_and_interval(by_size.get_group(size).to_numpy()) for size in sizes)))
    return (
        "## Paraphrases and opposites\n\n"
        "How well the reward of each held-out prompt (alpha 0) agrees with the task: rank correlation with the truth (CartPole,\n"
        "MountainCar; 1 is perfect, -1 opposite) or area under the ROC curve of the states in the pose (humanoid; 0.5 is chance).\n"
        "Mean over the prompts, each averaged over the training seeds, and its 95 % bootstrap interval over the prompts. A prompt\n"
        "with a word that no caption uses is in the group of unknown words. An opposite should score low. Each prompt is in\n"
        f"`{PROMPTS}`.\n\n" + _table(("task", "group", "prompts", *(_name(size) for size in sizes)), rows)
    )


def _mean_and_interval(values: np.ndarray) -> str:
    if len(np.unique(values)) == 1:
        return f"{values[0]:.2f}"
    low, high = bootstrap((values,), np.mean, rng=0, method="percentile").confidence_interval
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def _walks(results: FamilyResults) -> str:
    sizes = list(results.speed["size"])
    summaries = {size: monotonicity(results.walks[results.walks["size"] == size]) for size in sizes}
    rows = []
    for index, walk in enumerate(summaries[sizes[0]].itertuples()):
        cells = [f"{each['spearman'].iloc[index]:.2f} / {each['fall'].iloc[index]:.2f}" for each in summaries.values()]
        rows.append((walk.task, walk.attribute, *cells))
    bent = results.walks[(results.walks["task"] == "humanoid-standing") & (results.walks["attribute"] == TRUNK_BENT)]
    degrees = sorted(bent["value"].unique())
    trunk = [
        (_name(size), *(f"{reward:.2f}" for reward in bent[bent["size"] == size].sort_values("value")["reward"]))
        for size in sizes
    ]
    return (
        "## One attribute at a time\n\n"
        "Rank correlation of the reward with an attribute that leaves the goal, all else fixed (-1: it falls steadily) / how far it\n"
        "falls in all, as a share of its range over the held-out states. In the last row nothing changes that the prompt speaks of.\n\n"
        + _table(("task", "attribute", *(_name(size) for size in sizes)), rows)
        + f'\nReward for "{find_task("humanoid-standing").goal_prompt}" by degrees that the trunk is bent:\n\n'
        + _table(("model", *(f"{value:g}" for value in degrees)), trunk)
    )


def _peaks(results: FamilyResults) -> str:
    rows = []
    for (landscape, size), part in results.peaks.groupby(["landscape", "size"], sort=False):
        by_alpha = part.set_index("alpha")
        cells = [f"{row.peak:.2f} / {row.spearman:.2f}" for row in (by_alpha.loc[alpha] for alpha in ALPHAS)]
        rows.append((landscape, _name(str(size)), *cells))
    return (
        "## Landscapes\n\n"
        "Position of the largest reward / rank correlation of the reward with closeness to the goal: for the pole within\n"
        "90 degrees of upright (goal at 0), and for the car along the track (flag at 0.45; correlation over the half with\n"
        "the flag).\n\n"
        "![reward by state, model and alpha](landscapes.png)\n\n"
        + _table(("landscape", "model", *(f"alpha {alpha:g}" for alpha in ALPHAS)), rows)
    )


def _retrieval(results: FamilyResults) -> str:
    sizes = list(results.speed["size"])
    rows = []
    for environment, part in results.retrieval.groupby("environment", sort=False):
        by_size = part.set_index("size")
        chance = f"{by_size['by_chance'].iloc[0]:.2f}"
        rows.append((environment, chance, *(f"{by_size.loc[size, 'found']:.2f}" for size in sizes)))
    return (
        "## Unseen wordings\n\n"
        "Share of frames of clear cases whose own captions, in wordings that training did not use, are the nearest.\n\n"
        + _table(("environment", "by chance", *(_name(size) for size in sizes)), rows)
    )


def _speed(results: FamilyResults) -> str:
    speeds = results.speed.set_index("size")["frames_per_second"]
    rows = [(_name(str(size)), f"{speed:.0f}") for size, speed in speeds.items()]
    return (
        "## Speed\n\nScoring 1 024 frames of 64 x 64 pixels on one thread: median of five runs, in which the sizes take turns.\n\n"
        + _table(("model", "frames per second"), rows)
    )


def draw_trend(results: Sequence[FamilyResults]) -> Figure:
    """Draw the mean EPIC distance by number of parameters, with bootstrap intervals.

    Args:
        results: A line for each.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for each in results:
        means = each.means[each.means["alpha"] == 0]
        seed = embedded_manifest(each.folder)[means["size"].iloc[0]]["seed"]
        spread = [means[EPIC_DISTANCE] - means[EPIC_LOW], means[EPIC_HIGH] - means[EPIC_DISTANCE]]
        axes.errorbar(means[PARAMETERS_MILLIONS], means[EPIC_DISTANCE], spread, marker="o", capsize=3, label=f"seed {seed}")
    parameters = results[0].means.drop_duplicates("size").set_index("size")[PARAMETERS_MILLIONS]
    axes.set(xscale="log", xlabel="parameters (millions)", ylabel="EPIC distance, mean of ten tasks (alpha 0)")
    axes.set_xticks(parameters, [f"{size}\n{millions:.2g}" for size, millions in parameters.items()])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def draw_landscapes(landscapes: pd.DataFrame) -> Figure:
    """Draw landscapes: a row of panels for each landscape, a column for each size, a line for each alpha.

    Args:
        landscapes: `landscapes` of `FamilyResults`.

    Returns:
        The figure; the goal is dashed.
    """
    names, sizes = landscapes["landscape"].unique(), landscapes["size"].unique()
    figure, axes = plt.subplots(
        len(names), len(sizes), figsize=(3 * len(sizes), 2.4 * len(names)), layout="constrained", squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        for axis, size in zip(row, sizes, strict=True):
            panel = landscapes[(landscapes["landscape"] == name) & (landscapes["size"] == size)]
            for alpha, line in panel.groupby("alpha"):
                axis.plot(line["position"], line["reward"], label=f"alpha {alpha:g}")
            axis.axvline(0.0 if name.startswith("pole") else FLAG, color="black", linestyle="--", linewidth=1)
            axis.set(title=f"{EMBEDDED}/{size}", xlabel=name, ylabel="reward")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure
