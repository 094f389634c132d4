"""What made an artefact: code fingerprints and records."""
