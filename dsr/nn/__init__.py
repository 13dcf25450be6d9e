"""Networks: signals between layers, layers, neurons, losses."""
