"""SpikingClassifier and SpikingRegressor, spiking networks as estimators of scikit-learn."""
