"""Run by Nuke at start with a GUI: adds the HDRGen menu. It must never stop Nuke starting."""
