"""Training an editor: the step, the loop around it, checkpoints."""
