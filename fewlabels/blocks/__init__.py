"""Blocks that go inside a backbone, and the one way in: :func:`fewlabels.blocks.insert.insert`."""
