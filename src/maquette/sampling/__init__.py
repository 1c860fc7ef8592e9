"""From a denoiser to pictures: schedules, samplers, the loop, and what a drawing applies to its base."""
