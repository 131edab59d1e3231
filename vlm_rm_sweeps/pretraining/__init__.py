"""How the embedded family of small CLIP models is trained."""
