"""Gradient checkpointing: what lies within a block is computed again on the way back (arXiv 1604.06174)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    """A module whose parts forget, where it is asked to, all but their inputs."""

    gradient_checkpointing = False

    def run(self, part: nn.Module, *inputs: Any) -> Tensor:
        """part(*inputs)."""
        forgets = self.gradient_checkpointing and torch.is_grad_enabled()
        output: Tensor = checkpoint(part, *inputs, use_reentrant=False) if forgets else part(*inputs)
        return output

    def enable_gradient_checkpointing(self) -> None:
        """In every part."""
        for module in self.modules():
            if isinstance(module, Checkpointed):
                module.gradient_checkpointing = True
