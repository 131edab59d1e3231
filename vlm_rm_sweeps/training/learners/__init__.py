"""RLlib's learners with its mathematics, and without its bookkeeping for each update."""
