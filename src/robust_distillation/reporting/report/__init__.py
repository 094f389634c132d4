"""The report: one HTML file with the results of an experiment, which needs no network.

A section is made by a function that takes a `ReportData` and returns a `Section`, or None if the experiment does not
ask for it. All HTML is in templates/, with one template for each kind of element.
"""
