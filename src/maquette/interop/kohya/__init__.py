"""Kohya's trainer (sd-scripts and its GUI): its files and command lines read, and written."""
