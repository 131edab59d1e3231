"""How a folder that holds a model is named, and by which file it is recognised.

It imports nothing, as sweep files are read with it.
"""

FOLDER_PREFIX = "local-dir:"
"""What the id of a model in a folder may begin with."""
CONFIG_FILE = "open_clip_config.json"
"""What open_clip exports beside the weights: the objects model_cfg and preprocess_cfg."""
