"""Trains the pocket base: scenes from sprites, VAE, text and image towers, UNet. See README.md beside this file."""
