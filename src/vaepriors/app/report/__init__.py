"""Pictures, figures and pages of runs."""
