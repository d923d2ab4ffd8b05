"""EXR, photographs, movies, sequences and tiles as frames; no torch."""
