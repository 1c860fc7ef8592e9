"""X/Y/Z grids: values as A1111 writes them, what each changes, and the cells in the order that loads least."""
