"""Parts of `benchmarks.checkpoint_choice`: how often the rule that chooses a checkpoint is right."""
