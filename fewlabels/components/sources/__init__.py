"""Where images and what is known about them come from."""
