"""A policy that ships with the package (`policy/`: a trial of `sweeps/quickstart.yaml`), and the page that shows it."""
