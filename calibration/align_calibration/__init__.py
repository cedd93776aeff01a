"""From samples to activation ranges and scales."""
