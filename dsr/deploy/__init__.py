"""A trained network where it runs: as a program of plain steps, and compiled into a session for this machine."""
