"""Training: builds it from an experiment, runs the loop and the train step, and saves and restores its state.

May import: `utils`, `protocols`, `plugin`, `config`, `nn`, `data`, `viz`, `evaluation`.
"""
