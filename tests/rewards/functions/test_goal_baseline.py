"""The reward's fast form against its definitions, and its independence, to the bit, of what is computed beside it."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.rewards.functions.goal_baseline import goal_baseline_reward, prompt_embedding

# The first call of torch's functions takes longer than hypothesis allows an example.
patient = settings(deadline=None)

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def unit_vectors(count: int, dimensions: int, generator: torch.Generator) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dimensions, generator=generator), dim=-1)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Images (n, d), goals (s, d), baselines (s, d), alphas (s,)."""
    images, specs, dimensions = draw(st.integers(1, 70)), draw(st.integers(1, 6)), draw(st.integers(2, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    alphas = draw(st.lists(st.floats(0, 1, width=32), min_size=specs, max_size=specs))
    goals, baselines = unit_vectors(specs, dimensions, generator), unit_vectors(specs, dimensions, generator)
    assume(bool(((goals - baselines).norm(dim=-1) > 0.1).all()))
    return unit_vectors(images, dimensions, generator), goals, baselines, torch.tensor(alphas)


def matrix_form(image: torch.Tensor, goal: torch.Tensor, baseline: torch.Tensor, alpha: float) -> float:
    """The paper's official code: 1 - ||(s - g)(alpha P + (1 - alpha) I)||^2 / 2."""
    direction = goal - baseline
    projection = torch.outer(direction, direction) / direction.dot(direction)
    mixed = alpha * projection + (1 - alpha) * torch.eye(len(goal), dtype=goal.dtype)
    return float(1 - ((image - goal) @ mixed).square().sum() / 2)


def definition(image: torch.Tensor, goal: torch.Tensor, baseline: torch.Tensor, alpha: float) -> float:
    """The paper's formula: 1 - ||alpha proj_L(s) + (1 - alpha) s - g||^2 / 2."""
    direction = (goal - baseline) / (goal - baseline).norm()
    on_line = baseline + (image - baseline).dot(direction) * direction
    return float(1 - (alpha * on_line + (1 - alpha) * image - goal).square().sum() / 2)


@patient
@given(cases())
def test_alpha_0_is_the_cosine(case: Case) -> None:
    images, goals, baselines, alphas = case
    rewards = goal_baseline_reward(images, goals, baselines, torch.zeros_like(alphas))
    torch.testing.assert_close(rewards, images @ goals.T, atol=2e-6, rtol=0)


@patient
@given(cases(), st.integers(0, 2**31))
def test_alpha_1_ignores_what_is_orthogonal_to_the_line(case: Case, seed: int) -> None:
    images, goals, baselines, _ = case
    directions = torch.nn.functional.normalize(goals - baselines, dim=-1)
    shift = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    for index, direction in enumerate(directions):
        across = shift - (shift @ direction)[:, None] * direction
        spec = goals[[index]], baselines[[index]]
        rewards = goal_baseline_reward(images, *spec, torch.ones(1))
        shifted = goal_baseline_reward(images + across, *spec, torch.ones(1))
        torch.testing.assert_close(shifted, rewards, atol=2e-5, rtol=0)
        # At alpha 0 such a shift does cost: it is longer than the distance of two unit vectors, so it cannot cancel out.
        if images.shape[1] > 2 and float(across.norm(dim=-1).min()) > 2.1:
            assert bool((goal_baseline_reward(images + across, *spec, torch.zeros(1)) < rewards).all())


@patient
@given(cases())
def test_agrees_with_the_official_matrix_form_and_with_the_definition(case: Case) -> None:
    images, goals, baselines, alphas = case
    rewards = goal_baseline_reward(*case)
    assert rewards.shape == (len(images), len(goals))
    assert rewards.dtype == torch.float32
    for n, image in enumerate(images.double()[:5]):
        for s, alpha in enumerate(alphas.tolist()):
            spec = goals[s].double(), baselines[s].double()
            assert float(rewards[n, s]) == pytest.approx(matrix_form(image, *spec, alpha), abs=2e-5)
            assert float(rewards[n, s]) == pytest.approx(definition(image, *spec, alpha), abs=2e-5)


@patient
@given(cases())
def test_reward_is_1_at_the_goal_and_falls_off(case: Case) -> None:
    images, goals, baselines, alphas = case
    at_goals = goal_baseline_reward(goals, goals, baselines, alphas).diagonal()
    torch.testing.assert_close(at_goals, torch.ones_like(at_goals))
    assert bool((goal_baseline_reward(images, goals, baselines, alphas) <= 1).all())


@patient
@given(cases())
def test_reward_does_not_depend_on_what_is_computed_beside_it_to_the_bit(case: Case) -> None:
    images, goals, baselines, alphas = case
    rewards = goal_baseline_reward(*case)
    for s in range(len(goals)):
        alone = goal_baseline_reward(images, goals[s : s + 1], baselines[s : s + 1], alphas[s : s + 1])
        assert torch.equal(alone[:, 0], rewards[:, s])
    for n in range(len(images)):
        assert torch.equal(goal_baseline_reward(images[n : n + 1], goals, baselines, alphas)[0], rewards[n])
    order = torch.arange(len(images)).flip(0)
    assert torch.equal(goal_baseline_reward(images[order], goals, baselines, alphas), rewards[order])


@pytest.mark.parametrize("dimensions", [512, 1024, 1280])
def test_large_batch_equals_single_images_and_specs_to_the_bit(dimensions: int) -> None:
    generator = torch.Generator().manual_seed(dimensions)
    images = unit_vectors(257, dimensions, generator)
    goals, baselines = unit_vectors(12, dimensions, generator), unit_vectors(12, dimensions, generator)
    alphas = torch.linspace(0, 1, 12)
    rewards = goal_baseline_reward(images, goals, baselines, alphas)
    for s in (0, 5, 11):
        column = goal_baseline_reward(images, goals[[s]], baselines[[s]], alphas[[s]])[:, 0]
        assert torch.equal(column, rewards[:, s])
    for n in (0, 100, 256):
        assert torch.equal(goal_baseline_reward(images[[n]], goals, baselines, alphas)[0], rewards[n])
        assert torch.equal(goal_baseline_reward(images[[n]], goals[[7]], baselines[[7]], alphas[[7]])[0, 0], rewards[n, 7])


def test_goal_equal_to_its_baseline_is_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    images, goals, baselines = (unit_vectors(3, 16, generator) for _ in range(3))
    baselines[1] = goals[1]
    with pytest.raises(ValueError, match="same embedding: word them differently"):
        goal_baseline_reward(images, goals, baselines, torch.tensor([0.0, 0.5, 1.0]))
    # Where two wordings are all but the same, the direction would be rounding noise.
    baselines[1] = goals[1] + 1e-6
    with pytest.raises(ValueError, match="same embedding"):
        goal_baseline_reward(images, goals, baselines, torch.zeros(3))


def test_one_wording_is_its_own_embedding() -> None:
    embedding = unit_vectors(1, 16, torch.Generator().manual_seed(0))
    assert torch.equal(prompt_embedding(embedding), embedding[0])


def test_mean_of_several_wordings_is_not_normalised_again() -> None:
    mean = prompt_embedding(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert torch.equal(mean, torch.tensor([0.5, 0.5, 0.0]))


@patient
@given(cases())
def test_several_wordings_at_alpha_0_are_the_mean_cosine_up_to_a_constant(case: Case) -> None:
    images, wordings, baselines, _ = case
    goal = prompt_embedding(wordings)
    assume(float((goal - baselines[0]).norm()) > 0.1)
    rewards = goal_baseline_reward(images, goal[None], baselines[:1], torch.zeros(1))[:, 0]
    constant = (1 - goal.square().sum()) / 2
    torch.testing.assert_close(rewards, (images @ wordings.T).mean(dim=1) + constant, atol=2e-6, rtol=0)
