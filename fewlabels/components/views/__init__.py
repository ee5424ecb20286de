"""Random changes of an image before a training step: geometric maps and colours."""
