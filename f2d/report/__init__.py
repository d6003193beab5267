"""One HTML page about evaluations: tables, charts and pictures to compare, in a file that needs no network."""
