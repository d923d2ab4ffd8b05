"""Bakes nodes of a script: `nuke -t bake.py SCRIPT.nk --node=NAME --range=1001-1010`. See docs/farm.md."""

import sys

from nuke_hdrgen.host import farm

sys.exit(farm.main(sys.argv[1:]))
