"""Training: losses and objectives, batches, the Lightning module, and one function that fits a recipe."""
