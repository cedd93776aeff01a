"""The calibration dataset: the user's images and captions that activation ranges are measured on."""
