"""Many trainings on one machine or a cluster: rows of a file become results in an object store, each exactly once.

`driving`, `planning`, `reporting` and `keeping` have the functions of `maquette fleet`; nothing here imports torch
before a worker trains.
"""
