"""What a run shows: pictures."""
