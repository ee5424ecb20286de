"""Reads a YAML file into a checked Recipe; imports no torch."""
