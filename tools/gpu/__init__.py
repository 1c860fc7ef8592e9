"""Checks and figures for a graphics card that is at hand for a few minutes; see README.md."""
