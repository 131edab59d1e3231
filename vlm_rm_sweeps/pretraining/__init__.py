"""Training and evaluation of the embedded family of small CLIP models."""
