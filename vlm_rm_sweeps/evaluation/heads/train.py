"""Training of a reward head on a data set, from its labels to its file and model card."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.heads.card import model_card
from vlm_rm_sweeps.evaluation.heads.examples import Labels, labels_of
from vlm_rm_sweeps.evaluation.heads.fit import fit_head
from vlm_rm_sweeps.evaluation.heads.validate import Validation, cross_validate
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.files import new_output
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.heads import MAX_HIDDEN, Head, HeadDescription, write_head
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel

CARD_SUFFIX = ".md"


@dataclass(frozen=True)
class TrainedHead:
    """A head, and what cross-validation measured.

    Attributes:
        head: The head, trained on all labels.
        validation: What heads measured that were trained in the same way, on episodes that they had not seen.
    """

    head: Head
    validation: Validation

    @property
    def card(self) -> str:
        """The model card, in Markdown."""
        return model_card(self.head, self.validation)


def card_file(head: Path) -> Path:
    """Return the path of the model card beside a head's file."""
    return head.with_name(head.name + CARD_SUFFIX)


def train_head(
    dataset: StateDataset,
    model_id: str,
    truth: str | None = None,
    pairs: bool = False,
    hidden: int = 0,
    seed: int = 0,
    load: Callable[[str], RewardModel] = load_for_measuring,
) -> TrainedHead:
    """Train a head on the labels of a data set.

    Args:
        dataset: The states.
        model_id: The model, whose weights stay as they are.
        truth: What the states are labelled by, see `labels_of_states`; for pairs `raters` or `rater:NAME`. None for `success`,
            or the raters of pairs.
        pairs: Whether to learn from pairs that raters have compared.
        hidden: Hidden units; 0 for a logistic regression.
        seed: Seed of the folds and of a network's first weights.
        load: Loads a model by its id.

    Returns:
        The head. The same data, model and settings give the same numbers.

    Raises:
        UserError: The model has no embeddings, or there are too few labels or episodes.
    """
    if not 0 <= hidden <= MAX_HIDDEN:
        raise UserError(f"hidden {hidden}: expected from 1 to {MAX_HIDDEN} hidden units, or 0 for a logistic regression")
    _refuse_without_embeddings(find_reward_model(model_id))
    labels = labels_of(dataset, truth, pairs)
    examples = labels.embedded(dataset, _refuse_without_embeddings(load(model_id)))
    try:
        validation = cross_validate(examples, hidden, seed)
    except UserError as error:
        raise UserError(f"{dataset.folder}: {error}; label more states, or make a data set of more episodes") from error
    weights = fit_head(examples, hidden, validation.penalty, seed)
    about = _description(dataset, model_id, labels, hidden, seed, validation)
    return TrainedHead(Head(about, weights), validation)


def _refuse_without_embeddings(model: RewardModel) -> ClipRewardModel:
    if not isinstance(model, ClipRewardModel):
        raise UserError(
            f"model {model.model_id!r} has no image embeddings that a head could learn from: expected a CLIP model, such as "
            "'embedded/small'"
        )
    return model


def _description(
    dataset: StateDataset, model_id: str, labels: Labels, hidden: int, seed: int, validation: Validation
) -> HeadDescription:
    model = _refuse_without_embeddings(find_reward_model(model_id))
    measures: dict[str, float | None] = {}
    for name, interval in validation.measures.items():
        for suffix, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high)):
            measures[name + suffix] = None if math.isnan(value) else value
    return HeadDescription(
        model=model_id,
        identity=model.weights_identity,
        width=model.width,
        frame_format=model.frame_format,
        hidden=hidden,
        task=dataset.task.name,
        truth=labels.truth,
        pairs=labels.are_pairs,
        data_sha256=labels.sha256(dataset),
        counts=labels.counts,
        measures=measures,
        seed=seed,
    )


def write_trained(file: Path, trained: TrainedHead) -> None:
    """Write a head's file and, beside it, its model card.

    Args:
        file: The head's file. Neither of the two may exist.
        trained: What to write.

    Raises:
        UserError: One of them exists, or cannot be written.
    """
    refuse_existing(file)
    with new_output(card_file(file), replaces=False) as unfinished:
        unfinished.write_text(trained.card, encoding="utf-8")
    try:
        write_head(file, trained.head)
    except BaseException:
        card_file(file).unlink(missing_ok=True)
        raise


def refuse_existing(file: Path) -> None:
    """Refuse to overwrite a head or its model card.

    Args:
        file: The head's file.

    Raises:
        UserError: One of the two exists.
    """
    for each in (file, card_file(file)):
        if each.exists():
            raise UserError(f"{each} exists already and is not overwritten: choose another name")
