"""maquette studio: one local page from photos to a chosen LoRA, and interfaces for other programs."""
