"""Command-line option handling, datasets, networks, losses and the training loop."""
