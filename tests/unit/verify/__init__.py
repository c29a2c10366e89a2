"""What a verification takes for equal."""
