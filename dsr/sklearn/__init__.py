"""SpikingClassifier, a spiking network as an estimator of scikit-learn."""
