"""The commands of ``dsr``, a module each: ``add`` declares one's arguments, and ``run`` does it."""
