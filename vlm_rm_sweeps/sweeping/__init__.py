"""Which reward models are compared: sweep files, their trials, and where the results go."""
