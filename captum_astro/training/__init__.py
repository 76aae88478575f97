"""Training: a short loop that resumes exactly, the tasks it is used for, and ablations over their options."""
