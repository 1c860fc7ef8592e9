"""Trains the pocket base: scenes from sprites, VAE, text and image towers, UNet, evaluation. See README.md beside this file."""
