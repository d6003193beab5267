"""Evaluate methods on data sets with the measures of the papers, and state the convention of each number."""
