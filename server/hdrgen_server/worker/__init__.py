"""The torch process: job loop, memory ladder, cancel."""
