"""What a run shows: pages, sheets of pictures, curves."""
