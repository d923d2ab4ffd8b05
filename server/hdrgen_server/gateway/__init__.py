"""The socket process: sessions, queue, admission, slots, supervisor, metrics. Never imports torch."""
