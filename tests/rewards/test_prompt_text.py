"""Nobody sees what a prompt looks like to a model, if it has characters that are not shown."""

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.prompt_text import check_visible, visible_text
from vlm_rm_sweeps.rewards.reward_model import RewardSpec


@pytest.mark.parametrize(
    "text", ["", " \t\n", "\u200b", "\u3164", "\u2800\u2800", "\u115f\u1160", "\uffa0", "\u034f", "\ufe0f"]
)
def test_what_nobody_sees_is_empty(text: str) -> None:
    assert not visible_text(text)
    with pytest.raises(UserError, match=r"goal prompts .* none of them empty"):
        RewardSpec((text,), ("a pole",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a po\u00adle", r"'a po\\xadle' has the invisible character U\+00AD \(character 5 of 7\)"),
        ("a \u202epole", r"'a \\u202epole' has the invisible character U\+202E \(character 3 of 7\)"),
        ("a pole\u3164", r"'a pole\\u3164' has the invisible character U\+3164"),
        ("a pole \u2800", r"U\+2800"),
        ("a po\u200dle", r"U\+200D"),
        ("caf\u00e9\u200d\u200d\u00e9", r"U\+200D"),
        ("a po\ufe0fle", r"U\+FE0F"),
        ("\u2764\ufe0f\ufe0f", r"U\+FE0F \(character 3 of 3\)"),
        ("a po\U000e0061le", r"'a po\\U000e0061le' has the invisible character U\+E0061"),
        ("a pole\x07", r"'a pole\\x07' has the invisible character U\+0007"),
        ("x" * 500 + "\n\u200b" + "x" * 500, r"'x{29}\\n\\u200bx{29}' has .* \(character 502 of 1002\)"),
    ],
    ids=ascii,
)
def test_an_invisible_character_is_refused_and_shown(text: str, message: str) -> None:
    with pytest.raises(UserError, match="baseline prompts: .*" + message):
        RewardSpec(("the goal",), ("seen", text))


@pytest.mark.parametrize(
    "text",
    [
        "a pole\tupright\nand still",
        "\U0001f469\u200d\U0001f680 on the moon",
        "\U0001f469\U0001f3fd\u200d\U0001f680",
        "\u2764\ufe0f\u200d\U0001f525",
        "1\ufe0f\u20e3 pole",
        "\u2600\ufe0f and \u2600\ufe0e",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u845b\U000e0100",
    ],
    ids=ascii,
)
def test_what_shapes_a_visible_character_stays(text: str) -> None:
    check_visible("goal prompts", [text])
