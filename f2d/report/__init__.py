"""One HTML page about evaluations: tables, charts and images to compare, in a file that works offline."""
