"""Configuration of sweeps: sweep files and screening files, and the plan that resolves them."""
