"""The report: what came out of an experiment as one HTML file that needs no network.

A section is a function from Material to a Section or None; templates/ hold all HTML, one per kind of part.
"""
