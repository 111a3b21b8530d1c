"""Model families as Linen modules, split into stages, loaded by name."""
