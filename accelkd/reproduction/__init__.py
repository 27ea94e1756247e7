"""The paper, whole: its experiments on a simulated cohort, its tables beside ours, and its claims, checked."""
