"""Training: losses, objectives, batches, the Lightning module, and `fit`, which trains a recipe."""
