"""Optimisers, schedules of the learning rate, and the average of weights."""
