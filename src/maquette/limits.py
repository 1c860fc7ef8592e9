"""Budgets of everything that is read from a user's or a stranger's file. docs/safety.md has them as a table.

A file that exceeds one is refused in one sentence, before the work is done. Far above what honest files need.
"""

from __future__ import annotations

PHOTO_BYTES = 500_000_000
"""Largest file of a photo or mask."""
PHOTO_PIXELS = 210_000_000
"""Most pixels of a photo."""
PHOTO_SIDE = 65_535
"""Longest side of a photo, in pixels."""
PHOTO_MEMORY = 750_000_000
"""Most bytes of memory that decoding a photo may need."""
PHOTO_WHOLE = 50_000_000
"""Pixels above which a photo is read at a half, a quarter or an eighth of its size."""

CAPTION_BYTES = 100_000
"""Largest caption file."""
PROMPT_CHARACTERS = 10_000
"""Longest prompt; about 30 chunks of 75 tokens."""
METADATA_BYTES = 200_000_000
"""Largest metadata file of a folder of photos (.json, .jsonl, .csv)."""
CONFIGURATION_BYTES = 2_000_000
"""Largest configuration: TOML, JSON of a program's settings, command line, script."""
RECORD_BYTES = 100_000_000
"""Largest file of a run folder that holds text (dataset.json, optimizer.json, manifests)."""
METRICS_BYTES = 1_000_000_000
"""Largest metrics.jsonl; some ten million steps."""
JSON_DEPTH = 100
"""Deepest nesting of JSON."""
TOML_DEPTH = 30
"""Deepest nesting of TOML, dotted keys included."""
NUMBER_DIGITS = 40
"""Most digits of a whole number."""

HEADER_BYTES = 25_000_000
"""Longest header of a safetensors file; that of SDXL has 0.4 MB."""
TENSORS = 100_000
"""Most tensors of a file."""
TENSOR_SIDES = 16
"""Most dimensions of a tensor."""
TENSOR_NUMBERS = 1 << 47
"""Most numbers in a tensor, also in one that is empty because another dimension is 0."""
PICKLE_BYTES = 20_000_000
"""Longest list of instructions of a PyTorch pickle; a model of 7 GB needs half a megabyte."""
PICKLE_STEPS = 400_000
"""Most instructions of a PyTorch pickle, and most entries of what it builds."""
PICKLE_DEPTH = 6
"""Levels of tables within tables that are searched for tensors."""
NAME_LENGTH = 1_000
"""Longest name of a tensor."""
SHARED_DATA = 4
"""Times its own size that the tensors of a PyTorch file may have together (several may share data)."""
ARCHIVE_INDEX_BYTES = 20_000_000
"""Longest index of the zip archive that a PyTorch file is."""

ALPHA_PATTERNS = 10_000
"""Most layers that PEFT's alpha_pattern may name."""
ALPHA_WILDCARDS = 8
"""Most of these that may be patterns rather than names, each of at most 100 characters and three `*` or `+`."""
CHANGE_NUMBERS = 1 << 28
"""Most numbers of a weight change that is computed without a layer to compare it with; the largest layer has 2^24."""
