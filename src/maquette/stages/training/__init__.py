"""The parts of the training stage; `stages.train` is the loop that uses them."""
