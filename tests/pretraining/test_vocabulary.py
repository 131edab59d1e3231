"""The reduced vocabulary splits the captions' words exactly as open_clip's full one, and can tokenize any other text."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer

from vlm_rm_sweeps.pretraining import cart_pole, humanoid, mountain_car
from vlm_rm_sweeps.pretraining.captions import caption_batch
from vlm_rm_sweeps.pretraining.vocabulary import write_vocabulary
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_FOLDER, embedded_sizes, find_model
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task


@pytest.fixture(scope="module")
def captions() -> list[str]:
    rng = np.random.default_rng(0)
    return caption_batch(cart_pole.sample_states(2_000, rng), rng)


@pytest.fixture(scope="module")
def full() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.fixture(scope="module")
def vocabulary(captions: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "bpe.txt.gz"
    write_vocabulary(captions, path)
    return path


def pieces(tokenizer: SimpleTokenizer, text: str) -> list[str]:
    return [tokenizer.decoder[token] for token in tokenizer.encode(text)]


def test_captions_are_split_as_by_the_full_tokenizer(captions: list[str], vocabulary: Path, full: SimpleTokenizer) -> None:
    reduced = SimpleTokenizer(bpe_path=str(vocabulary))
    for caption in set(captions):
        assert pieces(reduced, caption) == pieces(full, caption)


def test_shipped_vocabulary_splits_captions_and_prompts_as_the_full_tokenizer(full: SimpleTokenizer) -> None:
    shipped = find_model("embedded/tiny").tokenizer
    rng = np.random.default_rng(1)
    subjects = (cart_pole, mountain_car, humanoid)
    texts = {caption for subject in subjects for caption in caption_batch(subject.sample_states(300, rng), rng)}
    texts |= {text for task in map(find_task, BUILT_IN_TASKS) for text in (task.goal_prompt, task.baseline_prompt)}
    sweep = load_sweep(Path(__file__).parents[2] / "sweeps" / "quickstart.yaml")
    texts |= {text for prompt in sweep.prompts for text in (*prompt.goal, *prompt.baseline)}
    for text in texts:
        assert pieces(shipped, text) == pieces(full, text)


@pytest.mark.parametrize("text", ["zebra xylophone", "a quixotic humanoid robot, kneeling", "e=mc2 & more!", "größer 棒 🤖"])
def test_unknown_words_fall_back_to_smaller_pieces(text: str, vocabulary: Path, full: SimpleTokenizer) -> None:
    reduced = SimpleTokenizer(bpe_path=str(vocabulary))
    assert len(reduced.encode(text)) >= len(full.encode(text))
    assert reduced.decode(reduced.encode(text)) == full.decode(full.encode(text))


def test_apostrophes_are_split_as_by_the_full_tokenizer(tmp_path: Path, full: SimpleTokenizer) -> None:
    texts = ["the cart's pole", "a pole that isn't upright", "pole, upright - or not?"]
    write_vocabulary(texts, tmp_path / "bpe.txt.gz")
    reduced = SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"))
    for text in texts:
        assert pieces(reduced, text) == pieces(full, text)


@pytest.mark.parametrize("shipped", [True, False])
def test_file_has_no_newline_at_its_end(vocabulary: Path, shipped: bool) -> None:
    text = gzip.decompress((EMBEDDED_FOLDER / "bpe.txt.gz" if shipped else vocabulary).read_bytes()).decode()
    assert not text.endswith("\n")
    assert all(len(line.split(" ")) == 2 for line in text.split("\n")[1:])


def test_file_is_reproducible_to_the_byte(captions: list[str], vocabulary: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.txt.gz"
    write_vocabulary(reversed(captions), again)
    assert again.read_bytes() == vocabulary.read_bytes()
    # Bytes 4 to 7 of a gzip file are the time at which it was written.
    assert again.read_bytes()[4:8] == bytes(4)


def test_returned_size_is_that_of_the_tokenizer(captions: list[str], tmp_path: Path) -> None:
    size = write_vocabulary(captions, tmp_path / "bpe.txt.gz")
    tokenizer = SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"))
    assert size == tokenizer.vocab_size
    assert 512 < size < 2_000
    assert max(tokenizer.encode("a pole at the edge of zzz") + tokenizer.all_special_ids) == size - 1


def test_shipped_models_are_as_large_as_the_shipped_vocabulary() -> None:
    tokenizer = SimpleTokenizer(bpe_path=str(EMBEDDED_FOLDER / "bpe.txt.gz"))
    for size in embedded_sizes():
        config = json.loads((EMBEDDED_FOLDER / f"embedded-{size}.json").read_text())
        assert config["text_cfg"]["vocab_size"] == tokenizer.vocab_size
