"""A method and a data set in, the numbers of the papers out; each number with the convention it was computed by."""
