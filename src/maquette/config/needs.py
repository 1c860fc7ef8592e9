"""Which option of a training makes sense of which other one."""

from __future__ import annotations

# Options that one choice of another option makes sense of: key -> (the other key, its values).
NEEDS: dict[str, tuple[str, tuple[str | bool, ...]]] = {
    "num_vectors": ("method", ("textual-inversion", "pivotal")),
    "init_word": ("method", ("textual-inversion", "pivotal")),
    "embedding_learning_rate": ("method", ("textual-inversion", "pivotal")),
    "embedding_format": ("method", ("textual-inversion",)), "lokr_factor": ("method", ("lokr",)),
    "dora_axis": ("method", ("dora",)), "conv_rank": ("method", ("locon", "loha", "lokr")),
    "conv_alpha": ("method", ("locon", "loha", "lokr")), "huber_delta": ("loss_type", ("huber", "smooth_l1")),
    "huber_schedule": ("loss_type", ("huber", "smooth_l1")),
    "lr_scheduler_cycles": ("lr_scheduler", ("restarts",)), "lr_scheduler_power": ("lr_scheduler", ("polynomial",)),
    "lr_scheduler_timescale": ("lr_scheduler", ("inverse-sqrt",)), "decay_steps": ("lr_scheduler", ("stable-decay",)),
    "lr_scheduler_min_ratio": ("lr_scheduler", ("cosine", "stable-decay")),
    "text_encoder_learning_rate": ("text_encoder", (True,)),
}  # fmt: skip
