"""The trainer: set-up, step and loop, state and its resumption, checkpoints and previews of a run."""
