"""Labelling of states and videos by people: the page, the label file, and the agreement of raters."""
