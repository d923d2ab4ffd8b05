"""Run by Nuke at start in every mode: puts the gizmos on the plugin path. It must never stop Nuke starting."""
