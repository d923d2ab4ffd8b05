"""A test chart of known values: it shows that the whole way works before any model is there."""
