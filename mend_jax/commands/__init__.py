"""One file a command: what `mend-jax NAME` calls."""
