"""The public ops: one file each with formula, checks, schema, fake and autograd."""
