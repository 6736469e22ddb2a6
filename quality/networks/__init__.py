"""Networks of images: feature networks, classifiers, regressors, segmenters and pretrained encoders."""
