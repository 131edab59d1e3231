"""Training of reward heads on labelled states and pairs: examples, fits, cross-validation and the model card."""
