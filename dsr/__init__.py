"""dsr: spiking neural networks trained by Differentiation on Spike Representation, on the CPU."""
