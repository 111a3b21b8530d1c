"""Long searches for what is silently wrong: `python -m tests.campaigns --minutes N --seed S`."""
