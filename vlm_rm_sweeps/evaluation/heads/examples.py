"""What reward heads are trained on: embeddings of states with labels, or of pairs of them.

Shape suffixes: n examples, d embedding dimensions.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.evaluation.ground_truth import EVERYONE, RATER, SUCCESS, Truth, read_truth, refuse_foreign_labels
from vlm_rm_sweeps.evaluation.score import frames_of, in_chunks
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.labelling.agreement import answers_by_rater
from vlm_rm_sweeps.labelling.pairs import states_of_pair
from vlm_rm_sweeps.labelling.scales import CLOSER
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.rewards.clip import ClipRewardModel

MIN_OF_EACH = 10
"""Fewest labels of each class, and fewest pairs with a preference."""


@dataclass(frozen=True, eq=False)
class LabelledStates:
    """States with the labels 0 and 1.

    Attributes:
        images_nd: Their unit embeddings, float32.
        targets_n: Their labels, float.
        episodes_n: Their episodes, int.
    """

    images_nd: np.ndarray
    targets_n: np.ndarray
    episodes_n: np.ndarray

    def __len__(self) -> int:
        return len(self.targets_n)

    @property
    def episodes(self) -> np.ndarray:
        """Episode of each state, int (n, 1)."""
        return self.episodes_n[:, None]

    def at(self, chosen: np.ndarray) -> "LabelledStates":
        """Return the states at some positions, or where a mask is true."""
        return LabelledStates(self.images_nd[chosen], self.targets_n[chosen], self.episodes_n[chosen])


@dataclass(frozen=True, eq=False)
class ComparedStates:
    """Pairs of states, of which raters have said which one is closer to the goal.

    Attributes:
        left_nd: Unit embeddings of the states shown on the left, float32.
        right_nd: Those of the states on the right.
        targets_n: Share of raters that chose the left one, from 0 to 1; "the same" counts as half.
        episodes_n2: Episodes of the two states, int.
    """

    left_nd: np.ndarray
    right_nd: np.ndarray
    targets_n: np.ndarray
    episodes_n2: np.ndarray

    def __len__(self) -> int:
        return len(self.targets_n)

    @property
    def episodes(self) -> np.ndarray:
        """Episodes of the two states, int (n, 2)."""
        return self.episodes_n2

    def at(self, chosen: np.ndarray) -> "ComparedStates":
        """Return the pairs at some positions, or where a mask is true."""
        return ComparedStates(self.left_nd[chosen], self.right_nd[chosen], self.targets_n[chosen], self.episodes_n2[chosen])


Examples = LabelledStates | ComparedStates
"""Training data of a head."""


@dataclass(frozen=True)
class Labels:
    """Labels of a data set, before anything is embedded.

    Attributes:
        truth: Name of what they are from, see `read_truth`.
        states: Positions in the data set's table, int (n, 1) for states and (n, 2) for pairs, the left one first.
        targets_n: See `LabelledStates` and `ComparedStates`.
    """

    truth: str
    states: np.ndarray
    targets_n: np.ndarray

    @property
    def are_pairs(self) -> bool:
        """Whether they are of pairs."""
        return self.states.shape[1] == 2

    @property
    def counts(self) -> dict[str, int]:
        """Number of labels by answer."""
        if not self.are_pairs:
            return {"in the goal": int((self.targets_n == 1).sum()), "not in the goal": int((self.targets_n == 0).sum())}
        left, right = int((self.targets_n > 0.5).sum()), int((self.targets_n < 0.5).sum())
        return {"left is closer": left, "right is closer": right, "the same": len(self.targets_n) - left - right}

    def sha256(self, dataset: StateDataset) -> str:
        """Compute a checksum of the labels and of the images that they are about."""
        shown = dataset.table["sha256"].to_numpy()[self.states].tolist()
        return hashlib.sha256(json.dumps([shown, self.targets_n.tolist()]).encode()).hexdigest()

    def embedded(self, dataset: StateDataset, model: ClipRewardModel) -> Examples:
        """Embed the states, each once.

        Args:
            dataset: The states.
            model: A loaded model.

        Returns:
            The examples, in the order of the labels.

        Raises:
            UserError: An image cannot be read.
        """
        needed, places = np.unique(self.states, return_inverse=True)
        places = places.reshape(self.states.shape)
        images = embed_states(model, dataset, needed)
        if self.are_pairs:
            left, right = places.T
            return ComparedStates(images[left], images[right], self.targets_n, dataset.episodes[self.states])
        return LabelledStates(images[places[:, 0]], self.targets_n, dataset.episodes[self.states[:, 0]])


def embed_states(model: ClipRewardModel, dataset: StateDataset, positions: np.ndarray) -> np.ndarray:
    """Embed states of a data set.

    Args:
        model: A loaded model.
        dataset: The states.
        positions: Which of them, int (N,).

    Returns:
        Unit embeddings, float32 (N, D).

    Raises:
        UserError: An image cannot be read.
    """
    chunks = in_chunks(frames_of(dataset, model.frame_format, positions), model.frame_format)
    return np.concatenate([model.encode_frames(chunk).numpy() for chunk in chunks])


def labels_of_states(dataset: StateDataset, truth: str) -> Labels:
    """Read the labels of states.

    Args:
        dataset: The states.
        truth: See `read_truth`; a formula has to be a condition, such as `abs(theta) < 0.1`.

    Returns:
        At least 10 labels of each class.

    Raises:
        UserError: The data set has no such truth, it is not yes or no, or there are too few labels of a class.
    """
    found: Truth = read_truth(dataset, truth)
    if not found.is_binary:
        raise UserError(
            f"truth {truth!r} has other values than 0 and 1: a head learns from yes and no; compare with a number, as in "
            "'abs(theta) < 0.1'"
        )
    known = np.flatnonzero(found.known)
    labels = Labels(truth, known[:, None], found.values[known])
    if min(labels.counts.values()) < MIN_OF_EACH:
        raise UserError(
            f"{dataset.folder}: of the {len(known)} states with a known {truth!r}, {_counted(labels)}: expected at least {MIN_OF_EACH} "
            "of each; label more states, or make a larger data set"
        )
    return labels


def labels_of_pairs(dataset: StateDataset, truth: str) -> Labels:
    """Read the preferences between pairs of states.

    Args:
        dataset: The states.
        truth: `raters` (their mean), or `rater:NAME`.

    Returns:
        At least 10 pairs of which one state is closer.

    Raises:
        UserError: There are no such labels, they belong to another data set, or there are too few.
    """
    hint = f"compare states with `vlm-rm label {dataset.folder} --pairs`"
    if truth != EVERYONE and not truth.startswith(RATER):
        raise UserError(f"truth {truth!r} says nothing of pairs: expected `{EVERYONE}` or `{RATER}NAME`; {hint}")
    if not dataset.pairs_file.is_file():
        raise UserError(f"{dataset.folder} has no pairs that raters have compared: {hint}")
    answers = answers_by_rater(LabelStore(dataset.pairs_file, CLOSER).table())
    rater = truth.removeprefix(RATER)
    if answers.empty:
        raise UserError(f"{dataset.folder} has no compared pairs yet: {hint}")
    if truth != EVERYONE and rater not in answers:
        raise UserError(f"{dataset.folder}: " + unknown_name("rater", rater, answers.columns))
    shares = (answers.mean(axis=1) if truth == EVERYONE else answers[rater]).dropna()
    pairs = [states_of_pair(pair) or (pair, pair) for pair in shares.index]
    refuse_foreign_labels(dataset, [state for pair in pairs for state in pair], dataset.pairs_file)
    positions = {state: position for position, state in enumerate(dataset.ids)}
    places = [[positions[state] for state in pair] for pair in pairs]
    labels = Labels(truth, np.array(places, np.int64).reshape(-1, 2), shares.to_numpy(np.float64))
    decided = int((labels.targets_n != 0.5).sum())
    if decided < MIN_OF_EACH:
        raise UserError(
            f"{dataset.folder}: of {len(pairs)} compared pairs, {_counted(labels)}: expected at least {MIN_OF_EACH} in which one is "
            f"closer; {hint}"
        )
    return labels


def labels_of(dataset: StateDataset, truth: str | None, pairs: bool) -> Labels:
    """Read the labels that a head is to learn from.

    Args:
        dataset: The states.
        truth: See `labels_of_states` and `labels_of_pairs`; None for the success test, or the raters of pairs.
        pairs: Whether to learn from pairs.

    Returns:
        The labels.

    Raises:
        UserError: There are none, or too few.
    """
    if pairs:
        return labels_of_pairs(dataset, truth or EVERYONE)
    return labels_of_states(dataset, truth or SUCCESS)


def _counted(labels: Labels) -> str:
    return ", ".join(f"{count} are {answer}" for answer, count in labels.counts.items())
