"""Figures: one module per kind, each drawn once by Vega-Altair for the files and for the report.

A function of such a module returns a `figure.Figure` from data frames. `figure.save` writes it as SVG, PNG and PDF;
the report shows the same panels in the page's colours.
"""
