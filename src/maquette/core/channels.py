"""Channels of Stable Diffusion's latents, and of what its inpainting bases are shown: latent, mask, masked picture."""

LATENT_CHANNELS, INPAINTING_CHANNELS = 4, 9
