"""Blocks that go inside a backbone. None yet: the spatial assembly block and CBAM come later."""
