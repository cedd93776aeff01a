"""What goes past one call of the runtime: other engines do the work, and this is what they need of a bundle."""
