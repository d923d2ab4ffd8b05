"""A fake Nuke for the tests."""
