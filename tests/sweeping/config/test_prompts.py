"""Wordings out of files: one goal on each line, or YAML."""

from pathlib import Path

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.sweeping.config.prompts import prompts_to_compare, read_prompts
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE = find_task("cartpole-upright")


def test_a_text_file_has_one_goal_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "goals.txt"
    file.write_text("# wordings\na pole, upright\n\n  the pole points straight up  \n", encoding="utf-8")
    prompts = read_prompts([str(file), "upright pole"], "a cart")
    assert [prompt.goal for prompt in prompts] == [("a pole, upright",), ("the pole points straight up",), ("upright pole",)]
    assert {prompt.baseline for prompt in prompts} == {("a cart",)}
    assert [prompt.id for prompt in prompts] == ["a-pole-upright", "the-pole-points-straight-up", "upright-pole"]


def test_a_byte_order_mark_and_invisible_characters_make_no_prompt(tmp_path: Path) -> None:
    file = tmp_path / "goals.txt"
    file.write_bytes("\ufeff# my goals\r\nthe pole stands\r\n\u200b\r\n\u200b# more\r\n\u2060 \u00ad\r\n".encode())
    assert [prompt.goal for prompt in read_prompts([str(file)], "a cart")] == [("the pole stands",)]
    with pytest.raises(UserError, match="none of them empty"):
        RewardSpec(("\u200b",), ("a cart",))


def test_yaml_may_give_ids_baselines_and_several_wordings(tmp_path: Path) -> None:
    file = tmp_path / "goals.yaml"
    file.write_text("- an upright pole\n- {id: own, goal: [up, high up], baseline: pole}\n- {id: plain, goal: upwards}\n")
    plain, own, defaulted = read_prompts([str(file)], "a cart")
    assert (plain.goal, plain.baseline) == (("an upright pole",), ("a cart",))
    assert (own.id, own.goal, own.baseline) == ("own", ("up", "high up"), ("pole",))
    assert defaulted.baseline == ("a cart",)


def test_ids_are_unique_however_goals_begin() -> None:
    goals = ["the pole of the cart is standing straight upright " + end for end in ("now", "today", "soon")]
    ids = [prompt.id for prompt in read_prompts([*goals, "*", "**"], "a cart")]
    assert len(set(ids)) == 5
    assert all(len(each) <= 40 for each in ids)


def test_without_prompts_the_tasks_own_is_compared() -> None:
    (prompt,) = prompts_to_compare([], None, CARTPOLE)
    assert (prompt.id, prompt.goal, prompt.baseline) == ("task", (CARTPOLE.goal_prompt,), (CARTPOLE.baseline_prompt,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "# nothing\n", "expected goals, one on each line"),
        ("a.yaml", "goal: up", "expected goals, one on each line"),
        ("a.yaml", "- [up]", "found list"),
        ("a.yaml", "- {id: a b, goal: up}", "should match pattern"),
        ("a.yaml", "- {id: a, goal: up, gaol: up}", "Extra inputs"),
        ("a.yaml", "- {unclosed", "is not YAML"),
        ("a.txt", "up\nup\n", "duplicate goal 'up'"),
        ("a.yaml", "- {id: a, goal: up}\n- {id: a, goal: down}\n", "duplicate prompt id 'a'"),
        ("a.txt", "a cart\n", "goal and baseline are the same"),
        ("a.txt", b"\xff\xfe", "not a text file in UTF-8"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_prompts([str(file)], "a cart")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"goals\.txt: cannot be read \(No such file"):
        read_prompts(["goals.txt"], "a cart")


def test_an_invisible_baseline_is_one_message() -> None:
    for names in ([], ["a pole upright"]):
        with pytest.raises(UserError, match="baseline ' ': expected a sentence"):
            prompts_to_compare(names, " ", find_task("cartpole-upright"))


def test_thousands_of_goals_that_begin_alike_have_ids_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "goals.txt"
    file.write_text("".join(f"a pole that stands upright on top of the cart, number {number}\n" for number in range(10_010)))
    ids = [prompt.id for prompt in read_prompts([str(file)], "pole and cart")]
    assert len(set(ids)) == 10_010
    assert ids[:2] == ["a-pole-that-stands-upright-on-top-of-the", "a-pole-that-stands-upright-on-top-of-2"]
    assert ids[-1] == "a-pole-that-stands-upright-on-top-10010"
