"""Bundled trackers, which log a run's metrics outside its records; none is on by default."""
