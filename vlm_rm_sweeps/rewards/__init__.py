"""How a frame is scored. Knows nothing of Ray."""
