"""Evaluate methods on data sets by the measures of the papers, each number with its convention."""
