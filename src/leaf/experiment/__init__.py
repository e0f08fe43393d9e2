"""Cells and their training: from the configuration to the files of a finished cell."""
