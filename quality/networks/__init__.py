"""Networks that look at images: feature networks, classifiers, regressors, segmenters, encoders of others."""
