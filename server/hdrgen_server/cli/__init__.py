"""The command line, one file a command. `--help` imports no torch: heavy imports stand inside functions."""
