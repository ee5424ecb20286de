"""A YAML file becomes a checked Recipe; imports no torch."""
