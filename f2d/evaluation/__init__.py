"""Evaluate methods on datasets with the measures of the papers, and state the convention of each number."""
