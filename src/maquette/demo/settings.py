"""What the demonstration's training has otherwise than `maquette train`: for pocket and the drawn robot."""

from __future__ import annotations

from typing import Any

# Convolutions too, because the pocket UNet has no attention at its finest level; and the class word is held to what the
# base draws, because "robot" is new to it and would otherwise come to mean the mascot. So are a few ordinary objects.
HELD = ("a lion", "a penguin", "an umbrella", "a banana", "a rose", "a light bulb")
TRAINING: dict[str, Any] = {
    "method": "locon",
    "learning_rate": 3e-3,
    "prior_preservation": True,
    "prior_prompts": [f"a photo of {thing}" for thing in HELD],
}
