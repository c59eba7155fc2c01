"""The callbacks of a run: what happens between training steps, one file for each callback.

- base.py: the `Callback` protocol and what callbacks share.
- log.py, samples.py, checkpoints.py, scores.py, stop.py: the callbacks, in the order in which they are called.
- finite_check.py: the check for NaN and infinity that log and checkpoints share.
- callback_list.py: the order, and the function that the training loop calls.

Imports what `ganlab.run` may import, and of `ganlab.run` only `OpenedRun`, records, alarms, the sample spread
and the loss's optimum.
"""
