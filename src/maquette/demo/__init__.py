"""The pictures of the demo: a mascot drawn from shapes, on scenes."""
