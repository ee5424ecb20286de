"""A page on this machine that searches an index by an image that is dropped on it."""
