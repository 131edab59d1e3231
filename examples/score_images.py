"""Score images with a reward model and a sentence.

    python examples/score_images.py

It prints the rewards of four frames of CartPole: the upright pole (0 degrees) gets the highest.
"""

import numpy as np

from vlm_rm_sweeps import RewardSpec, find_task, load_reward_model


def main() -> dict[int, float]:
    """Score CartPole's frames at four pole angles.

    Returns:
        Reward by the pole's angle from upright, in degrees.
    """
    task = find_task("cartpole-upright")
    env = task.make_native_env(task.rendering(), None)
    env.reset(seed=0)
    angles, frames = [0, 30, 90, 180], []
    for angle in angles:
        task.states.place(env, {"theta": np.radians(angle)})
        frames.append(env.render())

    model = load_reward_model("embedded/small")
    spec = RewardSpec(
        goal_prompts=("pole vertically upright on top of the cart",), baseline_prompts=("pole and cart",), alpha=0.5
    )
    rewards = model.score(np.stack(frames), [spec])[:, 0]

    return {angle: float(reward) for angle, reward in zip(angles, rewards, strict=True)}


if __name__ == "__main__":
    for angle, reward in main().items():
        print(f"{angle:4d} degrees from upright: reward {reward:.3f}")
