"""What other trainers call their options, as data: no code of theirs, and none of maquette's that runs them."""
