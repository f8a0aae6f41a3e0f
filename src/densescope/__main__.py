"""``python -m densescope``."""

from densescope.cli import main

main()
