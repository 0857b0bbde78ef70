"""What view policies are worth: measured, and drawn."""
