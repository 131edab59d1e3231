"""What the package can do, shown in a minute by a policy that ships with it (`policy/`: a trial of `sweeps/quickstart.yaml`)."""
