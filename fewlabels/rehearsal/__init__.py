"""Runs a recipe shortened, on stand-in images, and says what the whole run costs."""
