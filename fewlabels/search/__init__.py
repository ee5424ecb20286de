"""An index of images that is searched with images."""
