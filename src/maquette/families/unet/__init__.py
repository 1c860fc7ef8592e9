"""The UNet of Stable Diffusion 1, 2 and XL and its ControlNet, under the names that diffusers gives their parameters.

B: batch. C: channels. h, w: height and width of a latent, or of a level's picture. n: tokens; m: tokens of the text.
"""

from .controlnet import ControlNetModel
from .transformer import KeptText
from .unet import UNet2DConditionModel

__all__ = ["ControlNetModel", "KeptText", "UNet2DConditionModel"]
