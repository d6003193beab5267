"""Training: losses, clean photographs degraded on the fly, the Lightning module, and one function that fits a
recipe."""
