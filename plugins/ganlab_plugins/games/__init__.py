"""Bundled games: which networks there are, and what each move of a step is made of."""
