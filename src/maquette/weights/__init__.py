"""Weight algebra: pure functions over named tensors, read from memory-mapped files and written tensor by tensor."""
