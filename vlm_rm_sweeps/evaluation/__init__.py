"""Which reward model can be trusted."""
