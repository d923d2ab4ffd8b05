"""How quality is scored: metrics, tables and contact sheets."""
