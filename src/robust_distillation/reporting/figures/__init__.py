"""Figures: one module for each kind, which draws it once for the files and for the report.

A function of such a module takes data frames and returns a `figure.Figure`, drawn with Vega-Altair. `figure.save`
writes it as SVG, PNG and PDF. The report shows the same panels in the colours of the page.
"""
