"""The paper's experiments on a simulated cohort, its tables beside ours, and its claims, each with a verdict."""
