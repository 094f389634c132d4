"""Tables and figures, from outcomes and training curves only."""
