"""Export of models and of finished experiments to formats that others can use without this project."""
