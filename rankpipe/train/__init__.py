"""Training rankers: losses, adapters, optimizers."""
