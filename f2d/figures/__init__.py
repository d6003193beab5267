"""Figures for papers and pages, drawn from evaluations."""
