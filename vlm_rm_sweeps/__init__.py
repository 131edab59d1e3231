"""vlm-rm-sweeps: CLIP as the reward of reinforcement learning, swept over prompts, model sizes and alpha."""
