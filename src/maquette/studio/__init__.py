"""maquette studio: one local page from photos to a chosen LoRA, and interfaces for other programs.

Nothing that answers requests imports torch: jobs and pictures are made by processes of their own.
"""
