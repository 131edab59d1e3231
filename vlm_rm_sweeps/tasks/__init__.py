"""Tasks to learn: environments, their rendering, their prompts and their ground truth."""
