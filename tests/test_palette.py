"""A model's colour does not change with what is drawn beside it."""

from vlm_rm_sweeps.palette import REFERENCE_COLOURS, model_colours


def luminance(colour: str) -> float:
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_models_colour_depends_on_the_sweep_alone() -> None:
    sweep = ["tiny", "small", "base"]
    assert model_colours([*sweep, "judge"]) | model_colours(sweep) == model_colours([*sweep, "base", "judge", "tiny"])
    assert len(set(model_colours(map(str, range(8))).values())) == 8
    assert len(model_colours(map(str, range(20)))) == 20


def test_colours_are_visible_on_white_and_on_the_reports_dark_ground() -> None:
    """Contrast of 2 is enough for a bar or a line beside a number; no text has these colours."""
    for colour in (*model_colours(map(str, range(8))).values(), *REFERENCE_COLOURS):
        assert 1.05 / (luminance(colour) + 0.05) > 2, colour
        assert (luminance(colour) + 0.05) / (luminance("#16181c") + 0.05) > 2, colour
