"""The physiological cohort simulator."""
