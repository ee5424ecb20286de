"""Modules that go into a backbone, behind one of its own modules."""
