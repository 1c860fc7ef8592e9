"""Translation between maquette and other trainers, both ways."""
