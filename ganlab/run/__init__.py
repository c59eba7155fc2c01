"""Runs: training an experiment into a run folder, resuming it, and reading the folder again.

- train.py, request.py, open_folder.py, resume.py, opened_run.py: the life of a run; start with train.py.
- callbacks/: what happens between training steps. events.py: the plugins' hooks and trackers.
- alarms.py, divergence.py, failure.py: what goes wrong with a run, and the message about it.
- run_folder.py, records.py: the files of a run. load_run.py, rescore.py, sample_images.py: a run that is read again.

May import: `utils`, `protocols`, `plugin`, `config`, `nn`, `data`, `viz`, `evaluation` and `training`.
"""
