"""LoRA and its relatives as files: every dialect read, the weight change of each module, written back."""

from .file import PICKLED, Adapter, require_name
from .reading import from_state_dict, load

__all__ = ["PICKLED", "Adapter", "from_state_dict", "load", "require_name"]
